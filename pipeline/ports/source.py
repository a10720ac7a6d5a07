"""The ports that read from Kafka: `Source` for the input of a handler group, `JournalReader` for journals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.core.names import TopicPartition
from pipeline.core.records import Record
from pipeline.errors import PipelineError

__all__ = ["JournalBounds", "JournalReader", "PartitionFailure", "Polled", "Source", "Sources"]


@dataclass(frozen=True, slots=True)
class PartitionFailure:
    """A partition that can no longer be read."""

    partition: TopicPartition
    error: PipelineError


class Polled(NamedTuple):
    """The result of one poll: records in offset order per partition, and partitions that failed."""

    records: Sequence[Record]
    failures: Sequence[PartitionFailure] = ()


class Source(Protocol):
    """The input of one handler group. Reads committed records only. The caller decides all positions."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Add partitions; reading starts at the given positions."""
        ...

    def unassign(self, partitions: Iterable[TopicPartition]) -> None: ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Up to `max_records` records. Returns at once if records are available, else waits up to `timeout_s`.

        A position outside of the partition's offsets is a PartitionFailure (FatalTaskError). An unreachable broker is
        not an error: the result is empty until the broker is reachable again.
        """
        ...

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions again from these positions. Records that were fetched before are discarded."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """(first offset that exists, position after the last committed record). May raise UnreachableError."""
        ...

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit positions to the consumer group, for lag monitoring. Best effort. Never waits, never raises."""
        ...

    def close(self) -> None: ...


class Sources(Protocol):
    """Opens the input of a consumer group."""

    def open(self, consumer_group: str, partitions: int = 0) -> Source:
        """A source without partitions. `partitions`: of all inputs of the group; it reads as many at most."""
        ...


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

    def starts(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset of each partition, in one request."""
        ...

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, in one request."""
        ...

    def ends(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The end of each partition for all readers, in one request: after the last record of an open transaction."""
        ...

    def highest_ends(
        self, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, requested through every broker: the answer of the newest leader.

        For partitions that the task only reads, where no record of its own can prove an end. Without `committed`: the
        end for all readers.
        """
        ...

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """The offset of the first record or marker at this time or later; the stable end if there is none."""
        ...

    def close(self) -> None: ...
