"""The input of a group."""

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
    """A partition that cannot be read any further."""

    partition: TopicPartition
    error: PipelineError


class Polled(NamedTuple):
    """What one poll returned: records in offset order per partition, and partitions that failed."""

    records: Sequence[Record]
    failures: Sequence[PartitionFailure] = ()


class Source(Protocol):
    """The input of one handler group: reads committed records only, holds no decisions about positions."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Add partitions, each read from its position on."""
        ...

    def unassign(self, partitions: Iterable[TopicPartition]) -> None: ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Up to `max_records` records; returns at once with what is there, else waits up to `timeout_s`.

        A position below or above what the partition still holds is a PartitionFailure (FatalTaskError).
        A broker that is away is no error here: the answer is empty until it is back.
        """
        ...

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these positions again; nothing fetched earlier is returned any more."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None: ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None: ...

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """(first offset still there, position after the last committed one). May raise UnreachableError."""
        ...

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit positions to the consumer group for lag tools: best effort, never waits, never raises."""
        ...

    def close(self) -> None: ...


class Sources(Protocol):
    """Opens the input of a consumer group."""

    def open(self, consumer_group: str) -> Source: ...
