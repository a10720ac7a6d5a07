"""Metadata and administration of one Kafka cluster: `KafkaCluster`. Every start sends its first request here.

This module has the cluster itself and its consumer groups; `pipeline.kafka.topics` has the topics.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, FatalTaskError, UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import NO_ANSWER, error_of, until_settled
from pipeline.kafka.topics import KafkaTopics

__all__ = ["KafkaCluster"]

_NO_GROUP = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


class KafkaCluster(KafkaTopics):
    """`ports.Cluster` on one admin client. Thread-safe."""

    def cluster_id(self) -> str:
        return str(self._describe_cluster().cluster_id)

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        """The positions that the consumer group has committed, requested for every partition of the cluster.

        The admin client's request for a whole group crashes the process if the group's coordinator moves at that
        moment (librdkafka issue 5040). A consumer's request does not.
        """
        what = f"offsets of group {consumer_group} on {self._servers}"
        reader = clients.open_client(Consumer, clients.consumer(self._settings, consumer_group))

        def ask() -> list[ClientPartition]:
            topics = reader.list_topics(timeout=self._timeout_s).topics
            partitions = [
                ClientPartition(name, number)
                for name, topic in topics.items()
                if not name.startswith("__")
                for number in topic.partitions
            ]
            found = reader.committed(partitions, timeout=self._timeout_s) if partitions else []
            for answer in found:
                if answer.error is not None:
                    raise KafkaException(answer.error)
            return found

        try:
            answers = until_settled(ask, what)
        except UnreachableError:
            self.member_ids(
                consumer_group
            )  # the client reports a denied request as a time-out; then this raises
            raise
        finally:
            reader.close()
        return {TopicPartition(p.topic, p.partition): p.offset for p in answers if p.offset >= 0}

    def forget(self, consumer_group: str) -> None:
        """Delete a consumer group and its positions. Does nothing if the group does not exist."""
        futures = self._admin.delete_consumer_groups([consumer_group], request_timeout=self._timeout_s)
        what = f"deletion of group {consumer_group} on {self._servers}"
        try:
            needs = f"Delete on consumer group {consumer_group}"
            self._answer(futures[consumer_group], what, needs=needs, ignore=_NO_GROUP)
        except FatalTaskError as error:
            raise ConfigError(error.message, hint="stop the consumers of that group, then repeat") from error

    def member_ids(self, consumer_group: str) -> list[str]:
        """The client id of each member of a consumer group, also during a rebalance."""
        what = f"members of group {consumer_group}"

        def ask() -> list[str]:
            futures = self._admin.describe_consumer_groups([consumer_group], request_timeout=self._timeout_s)
            self._admin.poll(0)
            try:
                found = futures[consumer_group].result(timeout=self._timeout_s + 5)
            except KafkaException as exception:
                if error_of(exception).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return []
                raise
            return [member.client_id for member in found.members]

        try:
            return until_settled(
                ask, f"{what} on {self._servers}", f"Describe on consumer group {consumer_group}"
            )
        except UnreachableError:
            self._choose_another_broker()
            raise
        except TimeoutError as error:
            self._choose_another_broker()
            raise UnreachableError(f"{what} on {self._servers}: no answer", hint=NO_ANSWER) from error
