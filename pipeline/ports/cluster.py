"""The ports to topics and cluster administration, `Cluster`, to consumer groups, `Members`, and of `pipeline doctor`,
`Probe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pipeline.core.names import TopicPartition
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.core.permissions import Operation  # slow to load, and only `pipeline doctor` needs it

__all__ = ["BrokerFacts", "Cluster", "Members", "PartitionHealth", "Probe", "TopicInfo", "TopicSpec"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. `replication` 0 means min(3, number of brokers)."""

    name: str
    partitions: int
    replication: int = 0
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. `topic_id` changes when a topic is deleted and created again.

    `config`: the effective value of every setting. `overridden`: the settings that are set on the topic itself; the
    others follow the cluster's defaults.
    """

    name: str
    topic_id: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    overridden: frozenset[str] = frozenset()


class Cluster(Protocol):
    """Metadata and administration. Every call may raise UnreachableError, or ConfigError for a missing permission."""

    def cluster_id(self) -> str: ...

    def brokers(self) -> int:
        """The current number of brokers."""
        ...

    def topics(self) -> list[str]:
        """The names of all topics except Kafka's internal ones."""
        ...

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name. Topics that do not exist are omitted."""
        ...

    def describe_by_most(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics as a majority of the brokers describes them. Each broker is asked separately.

        For decisions that must not rest on stale metadata: a broker that has lost its controllers describes topics
        as they were. Raises UnreachableError unless a majority answers and agrees.
        """
        ...

    def create(self, specs: Sequence[TopicSpec], *, check_only: bool = False) -> None:
        """Create topics and return when they accept writes. Topics that already exist are not changed.

        `check_only`, here and for `configure` and `grow`: let the brokers validate the request without a change.
        """
        ...

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        """Change settings of a topic, all or none, and return when the cluster shows them. None restores a default.

        Other settings are not changed. Raises ConfigError with the brokers' message if a setting does not exist, a
        value is not valid, a policy of the cluster forbids it, or the topic does not exist.
        """
        ...

    def grow(self, topic: str, partitions: int, *, check_only: bool = False) -> None:
        """Increase the number of partitions to `partitions` and return when they accept writes.

        Raises ConfigError with the brokers' message if the topic already has that many, or does not exist.
        """
        ...

    def default_replication(self) -> int:
        """The replication of a topic with `replication` 0: 3, or the number of brokers if it is smaller."""
        ...

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and return when they no longer exist. Topics that do not exist are ignored."""
        ...

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        """The committed positions of the consumer group; empty if there are none."""
        ...

    def forget(self, consumer_group: str) -> None:
        """Delete a consumer group and its positions. Does nothing if the group does not exist.

        Raises ConfigError if the group has members.
        """
        ...

    def member_ids(self, consumer_group: str) -> list[str]:
        """The client id of each member of a consumer group, also during a rebalance; empty if it has no members."""
        ...

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Delete the records below the offset `before`. Does nothing if there are none."""
        ...

    def close(self) -> None: ...


class Members(Protocol):
    """The membership of this process in the group of its app's workers."""

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a dynamic member, and stay one while `progress` keeps returning new values.

        `topic`: any topic that exists, because a member must subscribe to one. Returns at once; joining continues in
        the background. May raise ConfigError.
        """
        ...

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write (key, value) records outside of a transaction, and wait for delivery. From any thread.

        May raise UnreachableError, or ConfigError for a missing permission.
        """
        ...

    def problem(self) -> PipelineError | None:
        """Why this process cannot become or stay a member, such as a missing permission; None if no reason is known."""
        ...

    def leave(self) -> None:
        """Leave the group at once. Does nothing before `join`. Never raises."""
        ...


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
