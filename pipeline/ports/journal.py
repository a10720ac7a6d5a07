"""Reading journals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pipeline.core.names import TopicPartition

__all__ = ["JournalBounds", "JournalReader"]


class JournalBounds(NamedTuple):
    """A journal partition's ends, asked from the broker and never from a cache.

    `start`: first offset that still exists. `stable_end`: the end for committed readers. `end`: the end for
    all readers. `stable_end < end` while a transaction is open.
    """

    start: int
    stable_end: int
    end: int


class JournalReader(Protocol):
    """Reads committed chunks of journals, and knows where partitions begin and end. May raise UnreachableError."""

    def bounds(self, journal: TopicPartition) -> JournalBounds: ...

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, chunk) of every committed record in [start, end), in order.

        Ends when the reader's position reaches `end`, since markers occupy offsets. Raises TruncatedError
        when `start` is below what the journal still holds, and StaleReadError when the broker that is asked
        holds nothing up to `end`.
        """
        ...

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each, asked for all at once."""
        ...

    def highest_ends(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each, asked through every broker: the newest leader's answer.

        For partitions that are only read, where no record of our own can prove an end.
        """
        ...

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """The offset of the first record, or marker, of this time or later; the stable end without any."""
        ...

    def close(self) -> None: ...
