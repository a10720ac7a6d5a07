"""Steady traffic through a running system: a thread that sends, and one that reads and verifies committed results.

The latency of a record is the time from the call that sends it to the moment at which the reader has its result. Both
use one clock. The sender is not late because of the system: it sends what is due by the clock, whatever comes back.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import BenchmarkError
from benchmarks.peers.outputs import Tally
from benchmarks.peers.records import account_of, key_of, value_of
from pipeline.kafka.clients import LOGGER

__all__ = ["Arrivals", "Traffic", "percentile"]

_TICK_S = 0.002
_BY_KEY = -1  # the partitioner chooses
_POLL_S = 0.01
_JOIN_S = 30.0
UNSENT = -1.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The results of one stretch of time: by the number of each record, when it was sent and when its result came."""

    numbers: array[int]
    sent_s: array[float]
    came_s: array[float]

    def latencies_ms(self, after_s: float, before_s: float) -> list[float]:
        """Of the records that were sent between the two moments, in order."""
        pairs = zip(self.sent_s, self.came_s, strict=True)
        return sorted((came_s - sent_s) * 1000 for sent_s, came_s in pairs if after_s <= sent_s < before_s)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which such a share of the values is."""
    if not ordered:
        raise BenchmarkError("no record came back")
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Traffic:
    """Sends the records `first`, `first + step`, ... of the input. `numbered`: partition p gets the accounts p.

    The reader begins with the first result of the topic, so that the tally verifies everything.
    """

    def __init__(
        self,
        servers: str,
        source: str,
        target: str,
        partitions: int,
        tally: Tally,
        *,
        keys: int,
        first: int = 0,
        numbered: bool = False,
    ) -> None:
        self._source, self._keys, self._numbered = source, keys, numbered
        self._partitions = partitions
        self._tally = tally
        self._next = first
        self._rate, self._step, self._together = 0.0, 1, 1
        self._due = 0.0  # records
        self._changing = threading.Lock()
        self._sent_s: dict[int, float] = {}
        self._came: list[tuple[int, float]] = []
        self._looked_at = 0
        self._burst = 0
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "enable.idempotence": True,
                "logger": LOGGER,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": f"{target}-traffic",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,  # a fetch of a thousand partitions costs a broker 9 ms, even an empty one
                "fetch.queue.backoff.ms": 3,
                "logger": LOGGER,
            }
        )
        self._target = target
        self._offsets = dict.fromkeys(range(partitions), 0)  # of the next result, by partition of the target
        self._watched = self._wanted = frozenset(self._offsets)
        self._consumer.assign([TopicPartition(target, number, 0) for number in self._offsets])
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,)) for work in (self._send, self._read)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._consumer.close()

    @property
    def sent(self) -> int:
        """The number of records that this traffic has sent."""
        return len(self._sent_s)

    @property
    def outputs(self) -> int:
        """The number of verified results."""
        return self._tally.outputs

    def flow(self, rate: float, step: int = 1, together: int = 1) -> None:
        """From now on, so many records per second; of each `step` numbers, only one.

        `together`: so many records of one account at once, then those of the next account. The client sends a request
        for each partition, so single records of a thousand partitions would need ten thousand requests per second.
        """
        with self._changing:
            if self._together > 1:  # it has sent later records of some accounts
                self._next += -self._next % self._keys + (self._together - 1) * self._keys
            self._next += -self._next % (step if together == 1 else self._keys)
            self._step, self._together, self._rate, self._due = step, together, rate, 0.0

    def watch(self, partitions: Iterable[int] | None = None) -> None:
        """From now on, read the results of these partitions only; None: of all. Each makes a fetch more expensive."""
        self._wanted = frozenset(self._offsets if partitions is None else partitions)

    def burst(self, records: int) -> None:
        """Send so many records at once."""
        with self._changing:
            self._burst = records

    def wait(
        self, condition: Callable[[], bool], what: str, seconds: float, still: Callable[[], None]
    ) -> None:
        """Wait until it holds. `still` raises when that is in vain. Raises BenchmarkError."""
        deadline_s = time.monotonic() + seconds
        while not condition():
            self.check()
            still()
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"{what}: not in {seconds:.0f} s ({self.outputs} results)")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise what has ended one of the threads."""
        if self._error is not None:
            raise self._error

    def arrivals(self) -> Arrivals:
        """All results so far of records that this traffic has sent."""
        came = [(number, at_s) for number, at_s in list(self._came) if number in self._sent_s]
        return Arrivals(
            array("q", [number for number, _ in came]),
            array("d", [self._sent_s[number] for number, _ in came]),
            array("d", [at_s for _, at_s in came]),
        )

    def arrivals_after(self, sent_s: float) -> list[tuple[int, float]]:
        """The results since the last call of records that were sent later, with the time of each, in order."""
        start, self._looked_at = self._looked_at, len(self._came)
        return [
            (number, at_s)
            for number, at_s in self._came[start : self._looked_at]
            if self._sent_s.get(number, UNSENT) > sent_s
        ]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `check`, on the thread that waits
            self._error = error

    def _send(self) -> None:
        last_s = time.monotonic()
        while not self._stop.wait(_TICK_S):
            now_s = time.monotonic()
            with self._changing:
                self._due += (now_s - last_s) * self._rate + self._burst
                self._burst = 0
            last_s = now_s
            while self._send_due():
                pass
            self._producer.poll(0)
        self._producer.flush(_JOIN_S)

    def _send_due(self) -> bool:
        """Send what comes next, if it is due."""
        with self._changing:
            due = self._due >= self._together
            if due:
                self._due -= self._together
                self._send_next()
        return due

    def _send_next(self) -> None:
        for later in range(self._together):
            self._send_one(self._next + later * self._keys)
        self._next += self._step
        if self._next % self._keys < self._step:  # the later records of all accounts are sent
            self._next += (self._together - 1) * self._keys

    def _send_one(self, number: int) -> None:
        key, value = key_of(number, self._keys), value_of(number, self._keys)
        partition = account_of(number, self._keys) if self._numbered else _BY_KEY
        self._sent_s[number] = time.monotonic()
        while not self._stop.is_set():
            try:
                self._producer.produce(self._source, value, key, partition)
            except BufferError:  # Kafka is slower than the rate; the wait counts as latency
                self._producer.poll(_POLL_S)
            else:
                return

    def _read(self) -> None:
        while not self._stop.is_set():
            if self._watched != self._wanted:
                self._watched = self._wanted
                positions = [
                    TopicPartition(self._target, each, self._offsets[each]) for each in sorted(self._watched)
                ]
                self._consumer.assign(positions)
            messages = self._consumer.consume(1_000, _POLL_S)
            now_s = time.monotonic()
            for message in messages:
                if message.error() is not None:
                    continue  # such as a topic whose leader is not known yet
                self._offsets[message.partition() or 0] = (message.offset() or 0) + 1
                key, value = message.key(), message.value()
                self._tally.add(key or b"", value or b"")
                self._came.append((self._tally.last_number, now_s))
