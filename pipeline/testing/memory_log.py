"""What a Kafka cluster in memory keeps: records in the logs of partitions, with the transactions that wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from pipeline.core.names import TopicPartition
from pipeline.ports import Output
from pipeline.testing.memory_configs import DEFAULTS

__all__ = [
    "MemoryRecord",
    "MemoryTopic",
    "MissingTopicError",
    "Outcome",
    "OversizedError",
    "PartitionLog",
    "Transaction",
    "stored_size",
]

_CREATE_TIME = 1
_BATCH_OVERHEAD = 70  # what the broker counts beside key, value and headers of a record


class MissingTopicError(Exception):
    """The topic or partition does not exist."""


class OversizedError(Exception):
    """The record is larger than the topic's max.message.bytes."""


class Outcome(Enum):
    """Where a transaction is."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Transaction:
    """One transaction and the partitions it has written to."""

    def __init__(self) -> None:
        self.outcome = Outcome.OPEN
        self.partitions: dict[TopicPartition, int] = {}  # with its first offset there


class MemoryRecord:
    """`ports.Record`."""

    __slots__ = ("_headers", "_key", "_offset", "_partition", "_timestamp_ms", "_value")

    def __init__(self, partition: TopicPartition, offset: int, output: Output) -> None:
        self._partition = partition
        self._offset = offset
        self._key = output.key
        self._value = output.value
        self._timestamp_ms = output.timestamp_ms
        self._headers = list(output.headers) or None

    def topic(self) -> str:
        return self._partition.topic

    def partition(self) -> int:
        return self._partition.partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return (_CREATE_TIME, self._timestamp_ms)


@dataclass(slots=True)
class PartitionLog:
    """The log of a partition. A marker is an entry without a record."""

    start: int = 0
    entries: list[tuple[MemoryRecord | None, Transaction | None]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.entries)

    def truncate(self, before: int) -> None:
        """Remove what lies below `before`."""
        del self.entries[: max(0, before - self.start)]
        self.start = max(self.start, before)

    def lose_tail(self, start: int) -> None:
        """Remove what lies at `start` or above."""
        del self.entries[max(0, start - self.start) :]

    def between(self, start: int, end: int) -> Iterator[tuple[MemoryRecord | None, Transaction | None]]:
        """Entries with offsets in [start, end)."""
        for index in range(max(0, start - self.start), end - self.start):
            yield self.entries[index]


@dataclass(slots=True)
class MemoryTopic:
    """A topic: its settings, as far as it has its own, and the logs of its partitions."""

    topic_id: str
    replication: int
    overridden: dict[str, str]
    partitions: list[PartitionLog]

    @property
    def config(self) -> dict[str, str]:
        return {**DEFAULTS, **self.overridden}


def stored_size(output: Output) -> int:
    """What the broker counts of a record against `max.message.bytes`."""
    size = len(output.key or b"") + len(output.value or b"") + _BATCH_OVERHEAD
    return size + sum(len(name) + len(value or b"") for name, value in output.headers)
