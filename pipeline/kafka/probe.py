"""Requests that only `pipeline doctor` makes: `KafkaProbe`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.core.names import TopicPartition
from pipeline.core.permissions import Operation
from pipeline.errors import UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.errors import NO_ANSWER, error_of, until_settled
from pipeline.ports.cluster import BrokerFacts, PartitionHealth

__all__ = ["KafkaProbe"]

_OPERATIONS = {operation.name: operation for operation in Operation}
# The newest version of a request that a broker answers, in the client's log. ListOffsets: 9 since
# Kafka 3.9 (KIP-1005), 10 since 4.0 (KIP-1075).
_API = re.compile(r"ApiKey (\w+) \(-?\d+\) Versions \d+\.\.(\d+)")
_LEAST_LIST_OFFSETS = 9
_RELEASES = ((10, "4.0 or newer"), (_LEAST_LIST_OFFSETS, "3.9"), (0, "3.8 or older"))


class KafkaProbe(KafkaCluster):
    """`ports.Probe`, and `ports.Cluster`, on one admin client."""

    def facts(self) -> BrokerFacts:
        found = self._describe_cluster()
        versions = self._api_versions()
        offsets = versions.get("ListOffsets", -1)
        release = ""
        if offsets >= 0:
            release = next(name for least, name in _RELEASES if offsets >= least)
        controller = None if found.controller is None else int(found.controller.id)
        return BrokerFacts(
            str(found.cluster_id),
            len(found.nodes),
            controller,
            release,
            supported=offsets < 0 or offsets >= _LEAST_LIST_OFFSETS,
        )

    def health(self, topic: str) -> list[PartitionHealth]:
        return [
            PartitionHealth(each.leader, len(each.all), len(each.in_sync)) for each in self.replicas(topic)
        ]

    def topic_operations(self, topic: str) -> frozenset[Operation] | None:
        futures = self._admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=self._timeout_s
        )
        missing = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART})
        needs = f"Describe on topic {topic}"
        found = self._answer(futures[topic], f"description of topic {topic}", needs=needs, ignore=missing)
        return None if found is None else _operations(found)

    def group_operations(self, group: str) -> frozenset[Operation] | None:
        what = f"description of group {group} on {self._servers}"

        def ask() -> frozenset[Operation] | None:
            futures = self._admin.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=self._timeout_s
            )
            try:
                return _operations(futures[group].result(timeout=self._timeout_s + 5))
            except KafkaException as exception:
                if error_of(exception).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return None
                raise

        try:
            return until_settled(ask, what, f"Describe on consumer group {group}")
        except TimeoutError as error:
            raise UnreachableError(f"{what}: no answer", hint=NO_ANSWER) from error

    def newest_ms(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        spec = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
        asked = {ClientPartition(*place): place for place in partitions}
        futures = self._admin.list_offsets(dict.fromkeys(asked, spec), request_timeout=self._timeout_s)
        found = {}
        for partition, future in futures.items():
            place = asked[partition]
            needs = f"Describe on topic {place.topic}"
            answer = self._answer(future, f"newest record of {place}", needs=needs)
            if answer.offset >= 0 and answer.timestamp >= 0:
                found[place] = int(answer.timestamp)
        return found

    def _api_versions(self) -> dict[str, int]:
        """The newest version of each request that a broker answers, which is only in the client's debug log."""
        lines: list[str] = []
        logger = logging.Logger("pipeline.kafka.probe", logging.DEBUG)  # noqa: LOG001 - of this call only
        logger.addHandler(_Lines(lines))
        properties = clients.admin(self._settings)
        properties |= {"debug": "feature", "logger": logger, "error_cb": clients.global_error}
        client = clients.open_client(AdminClient, properties)
        try:
            client.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            clients.LOGGER.info("versions of requests: %s", error)
        client.poll(0)
        return {name: int(version) for line in lines for name, version in _API.findall(line)}


class _Lines(logging.Handler):
    """Collects messages. The client's log has no secrets."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def _operations(description: Any) -> frozenset[Operation] | None:
    found = description.authorized_operations
    if not found:
        return None
    return frozenset(_OPERATIONS[each.name] for each in found if each.name in _OPERATIONS)
