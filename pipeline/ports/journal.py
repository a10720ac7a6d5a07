"""The port that reads journals: `JournalReader`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pipeline.core.names import TopicPartition

__all__ = ["JournalBounds", "JournalReader"]


class JournalBounds(NamedTuple):
    """The bounds of a journal partition, always requested from the broker, never from a cache.

    `start`: the first offset that still exists. `stable_end`: the end for readers of committed records. `end`: the
    end for all readers. `stable_end < end` while a transaction is open.
    """

    start: int
    stable_end: int
    end: int


class JournalReader(Protocol):
    """Reads committed chunks of journals, and the bounds of partitions. Every call may raise UnreachableError."""

    def bounds(self, journal: TopicPartition) -> JournalBounds: ...

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, chunk) of every committed record in [start, end), in order.

        Ends when the reader's position reaches `end`, because transaction markers occupy offsets. Raises
        TruncatedError if `start` is below the first offset of the journal, and StaleReadError if the broker's log
        ends below `end`.
        """
        ...

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, in one request."""
        ...

    def highest_ends(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, requested through every broker: the answer of the newest leader.

        For partitions that the task only reads, where no record of its own can prove an end.
        """
        ...

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """The offset of the first record or marker at this time or later; the stable end if there is none."""
        ...

    def close(self) -> None: ...
