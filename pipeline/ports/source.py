"""The port that reads the input of a handler group: `Source`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.core.names import TopicPartition
from pipeline.core.records import Record
from pipeline.errors import PipelineError

__all__ = ["PartitionFailure", "Polled", "Source", "Sources"]


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

    def open(self, consumer_group: str) -> Source: ...
