"""Verifies what a system has put out: every record of the output topic, in order, against the input.

Each result names the number of its input record. So the tally knows the key, the amount and the order, and checks that

    1 each number comes once,
    2 it comes under its key, and the count of the key grows by one,
    3 the total grows by the record's amount.

So a prefix of the results is verified as well as all of them. An aggregating job puts out only some rows of a key; then
the counts grow, and the last row of each key must be its sum over the input.
"""

from __future__ import annotations

from array import array

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from benchmarks import BenchmarkError
from benchmarks.peers.records import BRANCHES, account_of, amount_of
from pipeline.kafka.clients import LOGGER

__all__ = ["JOBS_OF_ROWS", "OutputReader", "Tally", "WrongOutputError"]

JOBS_OF_ROWS = frozenset({"batch"})
_JOBS_OF_INPUTS = frozenset({"copy", "transactions", "produce", "ours-producer"})
_READ_AT_ONCE = 10_000
_READ_S = 60.0


class WrongOutputError(BenchmarkError):
    """A system has put out what the input does not say."""


class _Row(msgspec.Struct):
    """A result of any job. A copied input has no count."""

    number: int = -1
    total: int = 0
    count: int = 0


class Tally:
    """What is known of the results so far. `records`: numbers 0 to records - 1 are in the input."""

    def __init__(self, job: str, records: int, keys: int) -> None:
        self._job, self._records, self._keys = job, records, keys
        self._decoder = msgspec.json.Decoder(_Row)
        self._seen = bytearray(records)
        size = min(keys, BRANCHES) if job == "two-stages" else keys
        self._counts, self._totals = array("q", bytes(8 * size)), array("q", bytes(8 * size))
        self._prefix = b"branch-" if job == "two-stages" else b"account-"
        self.outputs = 0
        self.last_number = -1
        if job in JOBS_OF_ROWS:
            self._expected = _sums(records, keys)
            self._finished = 0

    @property
    def complete(self) -> bool:
        """Whether every input record is in the results."""
        if self._job in JOBS_OF_ROWS:
            return self._finished == min(self._records, self._keys)
        return self.outputs == self._records

    def add(self, key: bytes, value: bytes) -> None:
        """Verify one result. Raises WrongOutputError."""
        row = self._decoder.decode(value)
        self.outputs += 1
        if self._job in JOBS_OF_ROWS:
            self._add_row(key, row)
            return
        number = row.number
        if not 0 <= number < self._records:
            raise WrongOutputError(f"record {number} is not in the input")
        if self._seen[number]:
            raise WrongOutputError(f"record {number} was put out twice")
        self._seen[number] = 1
        self.last_number = number
        account = account_of(number, self._keys)
        index = account % BRANCHES if self._job == "two-stages" else account
        if key != self._prefix + b"%d" % index:
            raise WrongOutputError(f"record {number} was put out under the key {key!r}")
        if self._job not in _JOBS_OF_INPUTS:
            self._add_sum(number, index, row)

    def _add_sum(self, number: int, index: int, row: _Row) -> None:
        self._counts[index] += 1
        self._totals[index] += amount_of(number)
        if row.count != self._counts[index] or row.total != self._totals[index]:
            raise WrongOutputError(
                f"record {number}: total {row.total} of {row.count} records, expected {self._totals[index]} of "
                f"{self._counts[index]}"
            )

    def _add_row(self, key: bytes, row: _Row) -> None:
        index = int(key.removeprefix(self._prefix))
        counts, totals = self._expected
        if not self._counts[index] < row.count <= counts[index]:
            raise WrongOutputError(
                f"{key!r}: {row.count} records after {self._counts[index]}, of {counts[index]}"
            )
        self._counts[index] = row.count
        if row.count == counts[index]:
            self._finished += 1
            if row.total != totals[index]:
                raise WrongOutputError(f"{key!r}: the total is {row.total}, expected {totals[index]}")


def _sums(records: int, keys: int) -> tuple[array[int], array[int]]:
    counts, totals = array("q", bytes(8 * keys)), array("q", bytes(8 * keys))
    for number in range(records):
        account = account_of(number, keys)
        counts[account] += 1
        totals[account] += amount_of(number)
    return counts, totals


class OutputReader:
    """Reads committed results, from where the last read ended, and gives them to a tally."""

    def __init__(self, servers: str, topic: str, partitions: int, tally: Tally) -> None:
        self._servers, self._topic, self._tally = servers, topic, tally
        self._next = [0] * partitions

    def read(self) -> None:
        """Verify all that is committed now. Raises WrongOutputError."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"{self._topic}-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 3,
                "logger": LOGGER,
            }
        )
        places = [TopicPartition(self._topic, number, offset) for number, offset in enumerate(self._next)]
        consumer.assign(places)
        try:
            self._read(consumer)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> None:
        at_end: set[int] = set()
        quiet = 0
        while len(at_end) < len(self._next):
            messages = consumer.consume(_READ_AT_ONCE, 0.1)
            quiet = 0 if messages else quiet + 1
            if quiet * 0.1 > _READ_S:
                raise BenchmarkError(f"{self._topic} cannot be read")
            for message in messages:
                partition = int(message.partition() or 0)
                error = message.error()
                if error is None:
                    self._tally.add(_bytes(message.key()), _bytes(message.value()))
                    self._next[partition] = int(message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its documented name
                    at_end.add(partition)
                else:
                    raise BenchmarkError(f"{self._topic}: {error}")


def _bytes(text: object) -> bytes:
    if not isinstance(text, bytes):
        raise WrongOutputError("a result without a key or a value")
    return text
