"""The port to what `pipeline doctor` asks a cluster beside the other ports: `Probe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.names import TopicPartition
from pipeline.core.permissions import Operation

__all__ = ["BrokerFacts", "PartitionHealth", "Probe"]


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """A cluster. `controller`: None if no broker names one. `release`: as far as it can be told; empty if not."""

    cluster_id: str
    brokers: int
    controller: int | None
    release: str = ""
    supported: bool = True


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """The replicas of one partition. `leader`: None if it has none."""

    leader: int | None
    replicas: int
    in_sync: int


class Probe(Protocol):
    """Requests about one cluster. Every call may raise UnreachableError or ConfigError."""

    def facts(self) -> BrokerFacts:
        """The brokers and their controller."""
        ...

    def health(self, topic: str) -> list[PartitionHealth]:
        """The replicas by partition; empty if the topic does not exist."""
        ...

    def topic_operations(self, topic: str) -> frozenset[Operation] | None:
        """What this user may do with a topic; None if the topic does not exist, or the brokers do not tell."""
        ...

    def group_operations(self, group: str) -> frozenset[Operation] | None:
        """What this user may do with a consumer group; None if the brokers do not tell."""
        ...

    def newest_ms(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The largest timestamp of each partition that has records."""
        ...
