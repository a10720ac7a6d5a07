"""Reads a real Kafka with a plain consumer of committed records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tests.support.checker.log import Place, Read, Record, TopicFacts, readable_headers

__all__ = ["KafkaLog"]

# The partition was truncated, or its topic recreated, since the client's last metadata.
_MOVED = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_ID}
# Brokers were restarted, or partitions have no leader yet.
_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
_PAUSE_S = 0.05
_REQUEST_S = 30.0
_READ_S = 60.0


class _MovedError(Exception):
    """The partition has changed since the request: repeat it."""


def _passes(error: Exception) -> bool:
    """Whether to repeat the request: a leader election is in progress, or the partition has changed."""
    return isinstance(error, _MovedError) or error.args[0].retriable() or error.args[0].code() in _PASSING


class KafkaLog:
    """`Log` of the topics of a cluster that `concerns` accepts."""

    def __init__(self, servers: str, concerns: Callable[[str], bool]) -> None:
        self._concerns = concerns
        self._known: set[str] = set()
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "checker",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 10,
            }
        )

    def topics(self) -> Mapping[str, TopicFacts]:
        names = [name for name in self._admin.list_topics(timeout=_REQUEST_S).topics if self._concerns(name)]
        if not names:
            return {}
        described = self._admin.describe_topics(TopicCollection(names), request_timeout=_REQUEST_S)
        found = {}
        for name, future in described.items():
            try:
                topic: Any = future.result(_REQUEST_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
                continue  # it was deleted since it was listed
            found[name] = TopicFacts(str(topic.topic_id), len(topic.partitions))
        return found

    def read(self, starts: Mapping[Place, int]) -> Mapping[Place, Read]:
        """Read partitions. The starts are requested first, so that a concurrent truncation is not reported as a gap."""
        deadline = time.monotonic() + _READ_S
        while starts:
            try:
                return self._read(starts, deadline)
            except (_MovedError, KafkaException) as error:
                if time.monotonic() >= deadline or not _passes(error):
                    raise
                # Otherwise the client would repeat the request with the leaders that it knows.
                with suppress(KafkaException):
                    self._admin.list_topics(timeout=_REQUEST_S)
                time.sleep(_PAUSE_S)
            finally:
                self._consumer.unassign()
        return {}

    def _read(self, starts: Mapping[Place, int], deadline: float) -> Mapping[Place, Read]:
        begins = self._offsets(starts, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        places = {place: max(start, begins[place]) for place, start in starts.items()}
        records, stable_ends = self._committed(places, deadline)
        ends = self._offsets(starts, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {
            place: Read(
                records[place],
                begins[place],
                stable_ends[place],
                ends[place],
                stable_ends[place] < ends[place],
            )
            for place in starts
        }

    def close(self) -> None:
        self._consumer.close()
        del self._consumer, self._admin  # ends their connections

    def _offsets(self, places: Mapping[Place, int], spec: OffsetSpec) -> dict[Place, int]:
        asked = {TopicPartition(*place): spec for place in places}
        futures = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_REQUEST_S
        )
        return {
            Place(partition.topic, partition.partition): future.result(_REQUEST_S).offset
            for partition, future in futures.items()
        }

    def _committed(
        self, starts: Mapping[Place, int], deadline: float
    ) -> tuple[dict[Place, list[Record]], dict[Place, int]]:
        """The records, and the end of each partition: the client reports the last stable offset when it reaches it."""
        records: dict[Place, list[Record]] = {place: [] for place in starts}
        ends: dict[Place, int] = {}
        for topic in {place.topic for place in starts} - self._known:
            # A client that has read other topics looks up the leaders of a new one only after a while.
            self._consumer.list_topics(topic, timeout=_REQUEST_S)
            self._known.add(topic)
        self._consumer.assign([TopicPartition(*place, start) for place, start in starts.items()])
        while len(ends) < len(starts):
            assert time.monotonic() < deadline, f"no end of {starts.keys() - ends.keys()}"
            for message in self._consumer.consume(1_000, 0) or self._consumer.consume(1, _PAUSE_S):
                self._take(message, records, ends)
        return records, ends

    @staticmethod
    def _take(message: Message, records: dict[Place, list[Record]], ends: dict[Place, int]) -> None:
        error, offset = message.error(), message.offset()
        place = Place(message.topic() or "", message.partition() or 0)
        if error is not None and error.code() in _MOVED:
            raise _MovedError(f"{place}: {error}")
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            ends[place] = offset if offset is not None else 0
        elif error is not None:
            assert error.retriable() or error.code() in _PASSING, error
        elif place not in ends and offset is not None:
            records[place].append(Record(offset, message.key(), message.value(), readable_headers(message)))
