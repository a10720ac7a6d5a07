"""Topics and the cluster's administration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.core.names import TopicPartition

__all__ = ["Cluster", "TopicInfo", "TopicSpec"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. `replication` 0 means min(3, number of brokers)."""

    name: str
    partitions: int
    replication: int = 0
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the cluster has it. `topic_id` changes when a topic is deleted and created again.

    `config`: every setting as it is in force. `overridden`: those of them that the topic has for itself; the others
    follow the cluster's defaults.
    """

    name: str
    topic_id: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    overridden: frozenset[str] = frozenset()


class Cluster(Protocol):
    """Metadata and administration. All calls may raise UnreachableError or ConfigError (not authorised)."""

    def cluster_id(self) -> str: ...

    def brokers(self) -> int:
        """How many brokers there are now."""
        ...

    def topics(self) -> list[str]:
        """The names of all topics but Kafka's own."""
        ...

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name; a missing topic is absent from the answer."""
        ...

    def describe_by_most(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The same, as most of the brokers answer, each asked for itself.

        For verdicts: a broker that has lost its controllers describes topics as they were. Raises UnreachableError
        where most do not answer or do not agree.
        """
        ...

    def create(self, specs: Sequence[TopicSpec], *, check_only: bool = False) -> None:
        """Create topics and return when they can be written. One that exists already is left as it is.

        `check_only`: ask the brokers whether they would, and change nothing. The same for `configure` and `grow`.
        """
        ...

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        """Set a topic's settings, all or none, and return when the cluster shows them; None: back to the default.

        Settings that are not named stay. ConfigError with the brokers' words: a setting that does not exist, a
        value that it cannot take, a policy of the cluster, a topic that is gone.
        """
        ...

    def grow(self, topic: str, partitions: int, *, check_only: bool = False) -> None:
        """Give a topic this many partitions in all and return when they can be written.

        ConfigError with the brokers' words: it has as many or more already, it is gone.
        """
        ...

    def default_replication(self) -> int:
        """What a topic gets that asks for no replication: 3, or the number of brokers when there are fewer."""
        ...

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and return when they are gone. One that does not exist is ignored."""
        ...

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        """Positions that the consumer group has committed; empty when it has none."""
        ...

    def forget(self, consumer_group: str) -> None:
        """Delete a consumer group with its positions; nothing happens when there is none.

        ConfigError when it has members.
        """
        ...

    def member_ids(self, consumer_group: str) -> list[str]:
        """The client id of each member of a consumer group, also while it is rebalancing; empty without one."""
        ...

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Delete every record below the offset `before`; nothing happens when there is none."""
        ...

    def close(self) -> None: ...
