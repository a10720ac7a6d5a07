"""Metadata and administration of one Kafka cluster: `KafkaCluster`. It is what every start asks first.

Answers come from the brokers, never from a cache, and a topic counts as created or deleted only when the
cluster shows it so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import error_of, request_failure, until_settled
from pipeline.kafka.reachable import require_listener
from pipeline.ports import TopicInfo, TopicSpec

__all__ = ["KafkaCluster"]

_REQUEST_TIMEOUT_S = 10.0
_VISIBLE_TIMEOUT_S = 30.0
_VISIBLE_POLL_S = 0.02
_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})


class KafkaCluster:
    """`ports.Cluster` on one admin client. Calls may come from several threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._servers = settings.bootstrap_servers
        self._client = clients.open_client(AdminClient, clients.admin(settings))
        self._looked = False

    @property
    def _admin(self) -> AdminClient:
        """The client. The first request says at once when nothing listens; later ones wait for a Kafka."""
        if not self._looked:
            require_listener(self._servers)
            self._looked = True
        return self._client

    def cluster_id(self) -> str:
        return str(self._describe_cluster().cluster_id)

    def topics(self) -> list[str]:
        """The names of all topics but Kafka's own."""
        try:
            found = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise request_failure(error_of(error), f"topics on {self._servers}") from error
        return [name for name in found if not name.startswith("__")]

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name, with id and configuration."""
        found = self._descriptions(topics)
        if not found:
            return {}
        resources = {ConfigResource(ResourceType.TOPIC, name): name for name in found}
        answers = self._admin.describe_configs(list(resources), request_timeout=_REQUEST_TIMEOUT_S)
        configs: dict[str, dict[str, str]] = {}
        for resource, future in answers.items():
            # Deleted between the two requests: missing, as if it had been a moment earlier.
            entries = self._answer(future, f"configuration of {resource.name}", ignore=_MISSING)
            if entries is not None:
                configs[resource.name] = {name: entry.value for name, entry in entries.items()}
        return {
            name: TopicInfo(
                name=name,
                topic_id=str(topic.topic_id),
                partitions=len(topic.partitions),
                replication=min((len(p.replicas) for p in topic.partitions), default=0),
                config=configs[name],
            )
            for name, topic in found.items()
            if name in configs
        }

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics and return when every partition has a leader."""
        if not specs:
            return
        replication = 0
        if any(spec.replication == 0 for spec in specs):
            replication = min(3, len(self._describe_cluster().nodes))
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
            wanted, request_timeout=_REQUEST_TIMEOUT_S, operation_timeout=_REQUEST_TIMEOUT_S
        )
        for name, future in futures.items():
            exists = frozenset({KafkaError.TOPIC_ALREADY_EXISTS})
            self._answer(future, f"creation of topic {name}", ignore=exists)
        names = [spec.name for spec in specs]
        self._wait(lambda: self._writable(names), f"topics {', '.join(names)} to have leaders")

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics and return when they are gone."""
        if not topics:
            return
        futures = self._admin.delete_topics(
            list(topics), request_timeout=_REQUEST_TIMEOUT_S, operation_timeout=_REQUEST_TIMEOUT_S
        )
        for name, future in futures.items():
            self._answer(future, f"deletion of topic {name}", ignore=_MISSING)
        self._wait(lambda: not self._descriptions(topics), f"topics {', '.join(topics)} to be gone")

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        """Positions that the consumer group has committed, asked for every partition of the cluster.

        The admin client's own request for a whole group ends the process when the group's coordinator
        happens to move (librdkafka issue 5040); a consumer's does not.
        """
        what = f"offsets of group {consumer_group} on {self._servers}"
        reader = clients.open_client(Consumer, clients.consumer(self._settings, consumer_group))

        def ask() -> list[ClientPartition]:
            topics = reader.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
            partitions = [
                ClientPartition(name, number)
                for name, topic in topics.items()
                if not name.startswith("__")
                for number in topic.partitions
            ]
            found = reader.committed(partitions, timeout=_REQUEST_TIMEOUT_S) if partitions else []
            for answer in found:
                if answer.error is not None:
                    raise KafkaException(answer.error)
            return found

        try:
            answers = until_settled(ask, what)
        finally:
            reader.close()
        return {TopicPartition(p.topic, p.partition): p.offset for p in answers if p.offset >= 0}

    def member_ids(self, consumer_group: str) -> list[str]:
        """The client id of each member of a consumer group, also while it is rebalancing."""
        what = f"members of group {consumer_group}"

        def ask() -> list[str]:
            futures = self._admin.describe_consumer_groups(
                [consumer_group], request_timeout=_REQUEST_TIMEOUT_S
            )
            self._admin.poll(0)
            try:
                found = futures[consumer_group].result(timeout=_REQUEST_TIMEOUT_S + 5)
            except KafkaException as exception:
                if error_of(exception).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return []
                raise
            return [member.client_id for member in found.members]

        try:
            return until_settled(ask, f"{what} on {self._servers}")
        except UnreachableError:
            self._choose_another_broker()
            raise
        except TimeoutError as error:
            self._choose_another_broker()
            raise UnreachableError(f"{what} on {self._servers}: no answer") from error

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Delete every record below the offset `before`; nothing happens when there is none."""
        where = f"truncation of {partition} at {before}"
        place = ClientPartition(partition.topic, partition.partition, before)
        futures = self._admin.delete_records(
            [place], request_timeout=_REQUEST_TIMEOUT_S, operation_timeout=_REQUEST_TIMEOUT_S
        )
        self._answer(next(iter(futures.values())), where)

    def close(self) -> None:
        """Nothing is held that outlives the process; the client ends when it is forgotten."""

    def _describe_cluster(self) -> Any:
        return self._answer(self._admin.describe_cluster(request_timeout=_REQUEST_TIMEOUT_S), "cluster")

    def _descriptions(self, topics: Sequence[str]) -> dict[str, Any]:
        """The client's descriptions of those topics that exist."""
        if not topics:
            return {}
        futures = self._admin.describe_topics(
            TopicCollection(list(topics)), request_timeout=_REQUEST_TIMEOUT_S
        )
        found = {
            name: self._answer(future, f"description of topic {name}", ignore=_MISSING)
            for name, future in futures.items()
        }
        return {name: topic for name, topic in found.items() if topic is not None}

    def _writable(self, topics: Sequence[str]) -> bool:
        found = self._descriptions(topics)
        return len(found) == len(set(topics)) and all(
            topic.partitions and all(p.leader is not None and p.leader.id >= 0 for p in topic.partitions)
            for topic in found.values()
        )

    def _answer(self, future: Future[Any], what: str, *, ignore: frozenset[int] = frozenset()) -> Any:
        """The future's value; None for an error that is an answer, too."""
        self._admin.poll(0)  # hands the client's log on
        try:
            return future.result(timeout=_REQUEST_TIMEOUT_S + 5)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() in ignore:
                return None
            if error.code() == KafkaError._TIMED_OUT:  # noqa: SLF001
                self._choose_another_broker()
            raise request_failure(error, f"{what} on {self._servers}") from exception
        except TimeoutError as error:
            self._choose_another_broker()
            raise UnreachableError(f"{what} on {self._servers}: no answer") from error

    def _choose_another_broker(self) -> None:
        """Replace the client. It sends what is here to one broker, the last one to be called the controller.

        When that one is away it waits for it alone, without asking the others who it is now, and connects
        again and again without a pause, on a whole core.
        """
        self._client = clients.open_client(AdminClient, clients.admin(self._settings))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _VISIBLE_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise UnreachableError(f"waited {_VISIBLE_TIMEOUT_S:.0f} s for {what} on {self._servers}")
            time.sleep(_VISIBLE_POLL_S)
