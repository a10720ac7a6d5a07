"""Describes, creates, changes and deletes the topics of one cluster: `KafkaTopics`, a base class of `KafkaCluster`.

Answers come from the brokers, never from a cache. A call that creates, changes or deletes a topic returns only when the
cluster's metadata shows the change.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from pipeline.core.names import TopicPartition
from pipeline.core.suggestions import counted
from pipeline.core.topic_settings import same_value
from pipeline.errors import ConfigError, PipelineError, UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.admin import AdminRequests
from pipeline.kafka.errors import error_of, request_failure
from pipeline.ports import TopicInfo, TopicSpec

__all__ = ["KafkaTopics"]

_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})


class Replicas(NamedTuple):
    """The broker ids of one partition. `leader`: None while there is none."""

    leader: int | None
    all: list[int]
    in_sync: list[int]


class KafkaTopics(AdminRequests):
    """The methods of `ports.Cluster` for topics."""

    def topics(self) -> list[str]:
        """The names of all topics except Kafka's internal ones."""
        try:
            found = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise request_failure(error_of(error), f"topics on {self._servers}") from error
        return [name for name in found if not name.startswith("__")]

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name, with id and configuration."""
        found = self._descriptions(topics)
        if not found:
            return {}
        resources = {ConfigResource(ResourceType.TOPIC, name): name for name in found}
        answers = self._admin.describe_configs(list(resources), request_timeout=self._timeout_s)
        configs: dict[str, Mapping[str, Any]] = {}
        for resource, future in answers.items():
            # The topic was deleted between the two requests, so it is missing.
            entries = self._answer(
                future,
                f"configuration of topic {resource.name}",
                needs=f"DescribeConfigs on topic {resource.name}",
                ignore=_MISSING,
            )
            if entries is not None:
                configs[resource.name] = entries
        return {
            name: _topic_info(name, topic, configs[name]) for name, topic in found.items() if name in configs
        }

    def describe_by_most(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics as a majority of the brokers describes them. Each broker is asked separately.

        The comparison ignores configurations, which differ while a change propagates. Raises UnreachableError unless a
        majority answers and agrees.
        """
        servers = clients.broker_addresses(self._admin, self._timeout_s, f"brokers on {self._servers}")
        if len(servers) < 2:
            return self.describe(topics)
        with ThreadPoolExecutor(len(servers), "kafka-topics") as threads:
            answers = list(threads.map(lambda server: self._described_by(server, topics), servers))
        votes = [answer for answer in answers if answer is not None]
        agreed: dict[str, TopicInfo] = {}
        for name in topics:
            count = Counter(_identity(vote.get(name)) for vote in votes)
            identity, most = count.most_common(1)[0] if count else (None, 0)
            if 2 * most <= len(servers):
                raise UnreachableError(
                    f"topic {name}: {most} of {counted(len(servers), 'broker')} agree on what it is",
                    hint="check the brokers: one may be down, or a stale leader",
                )
            if identity is not None:
                agreed[name] = next(v[name] for v in votes if _identity(v.get(name)) == identity)
        return agreed

    def _described_by(self, server: str, topics: Sequence[str]) -> dict[str, TopicInfo] | None:
        """The answer of one broker, through a client for that broker only; None if it does not answer."""
        single = type(self)(dataclasses.replace(self._settings, bootstrap_servers=server))
        try:
            return single.describe(topics)
        except (PipelineError, KafkaException) as error:
            clients.LOGGER.info("topics through %s: %s", server, error)
            return None
        finally:
            single.close()

    def create(self, specs: Sequence[TopicSpec], *, check_only: bool = False) -> None:
        """Create topics and return when every partition has a leader."""
        if not specs:
            return
        replication = self.default_replication() if any(spec.replication == 0 for spec in specs) else 0
        wanted = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=spec.replication or replication,
                config=dict(spec.config),
            )
            for spec in specs
        ]
        futures = self._admin.create_topics(
            wanted,
            request_timeout=self._timeout_s,
            operation_timeout=self._timeout_s,
            validate_only=check_only,
        )
        for name, future in futures.items():
            exists = frozenset({KafkaError.TOPIC_ALREADY_EXISTS})
            self._answer(future, f"creation of topic {name}", needs=f"Create on topic {name}", ignore=exists)
        names = [spec.name for spec in specs]
        if not check_only:
            self._wait(lambda: self._writable(names), f"topics {', '.join(names)} to have leaders")

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        """Change settings, and return when the cluster shows them. None restores a default."""
        if not settings:
            return
        resource = ConfigResource(ResourceType.TOPIC, topic)
        for name, value in settings.items():
            operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
            resource.add_incremental_config(
                ConfigEntry(name, value if value is not None else "", incremental_operation=operation)
            )
        futures = self._admin.incremental_alter_configs(
            [resource], request_timeout=self._timeout_s, validate_only=check_only
        )
        for future in futures.values():
            self._answer(
                future,
                f"configuration of topic {topic}",
                needs=f"AlterConfigs on topic {topic}",
                ignore=_MISSING,
            )
        self._require(topic)
        if not check_only:
            self._wait(lambda: self._shows(topic, settings), f"topic {topic} to be configured")

    def grow(self, topic: str, partitions: int, *, check_only: bool = False) -> None:
        """Increase the number of partitions, and return when every partition has a leader."""
        futures = self._admin.create_partitions(
            [NewPartitions(topic, partitions)],
            request_timeout=self._timeout_s,
            operation_timeout=self._timeout_s,
            validate_only=check_only,
        )
        for future in futures.values():
            self._answer(
                future, f"partitions of topic {topic}", needs=f"Alter on topic {topic}", ignore=_MISSING
            )
        self._require(topic)
        if not check_only:
            self._wait(
                lambda: self._writable([topic], partitions),
                f"topic {topic} to have {counted(partitions, 'partition')}",
            )

    def replicas(self, topic: str) -> list[Replicas]:
        """The replicas by partition; empty if the topic does not exist."""
        found = self._descriptions([topic]).get(topic)
        return [
            Replicas(
                _leader(partition),
                [node.id for node in partition.replicas],
                [node.id for node in partition.isr],
            )
            for partition in (found.partitions if found is not None else ())
        ]

    def brokers(self) -> int:
        """The current number of brokers."""
        return len(self._describe_cluster().nodes)

    def default_replication(self) -> int:
        """3, or the number of brokers if it is smaller."""
        return min(3, self.brokers())

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and return when they no longer exist."""
        if not topics:
            return
        futures = self._admin.delete_topics(
            list(topics), request_timeout=self._timeout_s, operation_timeout=self._timeout_s
        )
        for name, future in futures.items():
            self._answer(
                future, f"deletion of topic {name}", needs=f"Delete on topic {name}", ignore=_MISSING
            )
        self._wait(lambda: not self._descriptions(topics), f"the deletion of topics {', '.join(topics)}")

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Delete the records below the offset `before`. Does nothing if there are none."""
        where = f"truncation of {partition} at {before}"
        place = ClientPartition(partition.topic, partition.partition, before)
        futures = self._admin.delete_records(
            [place], request_timeout=self._timeout_s, operation_timeout=self._timeout_s
        )
        self._answer(next(iter(futures.values())), where, needs=f"Delete on topic {partition.topic}")

    def _descriptions(self, topics: Sequence[str]) -> dict[str, Any]:
        """The client's descriptions of the topics that exist."""
        if not topics:
            return {}
        once = TopicCollection(list(dict.fromkeys(topics)))  # the client refuses duplicate names
        futures = self._admin.describe_topics(once, request_timeout=self._timeout_s)
        found = {
            name: self._answer(
                future,
                f"description of topic {name}",
                needs=f"Describe on topic {name}",
                ignore=_MISSING,
            )
            for name, future in futures.items()
        }
        return {name: topic for name, topic in found.items() if topic is not None}

    def _require(self, topic: str) -> None:
        if topic not in self._descriptions([topic]):
            raise ConfigError(
                f"topic {topic} does not exist on {self._servers}", hint="check its name and repeat"
            )

    def _shows(self, topic: str, settings: Mapping[str, str | None]) -> bool:
        info = self.describe([topic]).get(topic)
        return info is not None and all(
            name not in info.overridden
            if value is None
            else name in info.overridden and same_value(info.config[name], value)
            for name, value in settings.items()
        )

    def _writable(self, topics: Sequence[str], partitions: int = 1) -> bool:
        found = self._descriptions(topics)
        return len(found) == len(set(topics)) and all(
            len(topic.partitions) >= partitions
            and all(_leader(partition) is not None for partition in topic.partitions)
            for topic in found.values()
        )


def _leader(partition: Any) -> int | None:
    found = partition.leader
    return int(found.id) if found is not None and found.id >= 0 else None


def _identity(info: TopicInfo | None) -> tuple[str, int] | None:
    return None if info is None else (info.topic_id, info.partitions)


def _topic_info(name: str, topic: Any, entries: Mapping[str, Any]) -> TopicInfo:
    return TopicInfo(
        name=name,
        topic_id=str(topic.topic_id),
        partitions=len(topic.partitions),
        replication=min((len(p.replicas) for p in topic.partitions), default=0),
        config={setting: entry.value or "" for setting, entry in entries.items()},
        overridden=frozenset(
            setting
            for setting, entry in entries.items()
            if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
            and not entry.is_read_only  # settings of a cloud provider that cannot be changed
            and not entry.is_sensitive  # brokers do not return its value
        ),
    )
