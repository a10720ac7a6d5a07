"""Topics of the comparison: creates them, loads the input, sees how far the output is, and deletes what a turn left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicMetadata  # type: ignore[attr-defined]

from benchmarks import BenchmarkError
from benchmarks.peers.records import key_of, note_of, value_of
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.kafka.clients import LOGGER

__all__ = ["Topics"]

Answer = TypeVar("Answer")
_ANSWER_S = 60.0
_DELETED_AT_ONCE = 50


class Topics:
    """The topics of one Kafka."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers}, logger=LOGGER)

    def create(self, names: Iterable[str], partitions: int) -> None:
        """Create topics, and wait until the broker serves all their partitions.

        The broker may still be creating their logs after the metadata names the leaders.
        """
        wanted = [NewTopic(name, partitions, 1) for name in names]
        for future in self._admin.create_topics(wanted).values():
            future.result(_ANSWER_S)
        deadline_s = time.monotonic() + _ANSWER_S
        while True:
            found = self._admin.list_topics(timeout=_ANSWER_S).topics
            parts = [part for topic in wanted for part in _parts(found, topic.topic)]
            if len(parts) == partitions * len(wanted) and all(leader >= 0 for leader in parts):
                for topic in wanted:
                    self.committed_end(topic.topic, partitions)
                return
            if time.monotonic() > deadline_s:
                raise BenchmarkError(f"{', '.join(topic.topic for topic in wanted)}: no leaders")
            time.sleep(0.05)

    def warm_up(self) -> None:
        """Wait until Kafka has created its topics for transactions and consumer groups, which it does when asked."""
        producer = Producer(
            {"bootstrap.servers": self.servers, "transactional.id": "warm-up", "logger": LOGGER}
        )
        producer.init_transactions(_ANSWER_S)
        group = ConsumerGroupTopicPartitions("warm-up")

        def coordinated() -> None:
            for future in self._admin.list_consumer_group_offsets([group]).values():
                future.result(_ANSWER_S)

        _repeated(coordinated)

    def load(self, topic: str, numbers: range, keys: int, *, note_bytes: int = 0, ids: bool = False) -> None:
        """Produce the records. `ids`: with the id of each as a header."""
        note = note_of(note_bytes)
        producer = Producer(
            {
                "bootstrap.servers": self.servers,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.kbytes": 200_000,
                "logger": LOGGER,
            }
        )
        for number in numbers:
            headers: list[tuple[str, str | bytes | None]] | None = None
            if ids:
                headers = [(EVENT_ID_HEADER, b"%d" % number)]
            while True:
                try:
                    producer.produce(
                        topic, value_of(number, keys, note), key_of(number, keys), headers=headers
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(_ANSWER_S):
            raise BenchmarkError(f"{topic} was not loaded")

    def committed_end(self, topic: str, partitions: int) -> int:
        """The sum of the end offsets up to which everything is committed. Markers of transactions count as records."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(topic, number): latest for number in range(partitions)}

        def summed() -> int:
            futures = self._admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
            return sum(int(future.result(_ANSWER_S).offset) for future in futures.values())

        return _repeated(summed)  # a new topic: not every node of the client knows its leader yet

    def delete_all_but(self, kept: Iterable[str]) -> None:
        """Delete every topic of users that is not kept: also those that a system has created for itself."""
        keep = set(kept)
        names = [
            name for name in self._admin.list_topics(timeout=_ANSWER_S).topics if not name.startswith("__")
        ]
        gone = sorted(name for name in names if name not in keep)
        for start in range(0, len(gone), _DELETED_AT_ONCE):
            for future in self._admin.delete_topics(gone[start : start + _DELETED_AT_ONCE]).values():
                future.result(_ANSWER_S)


def _repeated(request: Callable[[], Answer]) -> Answer:
    """Repeat a request that may fail until Kafka or the client is ready for it."""
    deadline_s = time.monotonic() + _ANSWER_S
    while True:
        try:
            return request()
        except KafkaException:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)


def _parts(found: Mapping[str, TopicMetadata], name: str) -> list[int]:
    topic = found.get(name)
    return [part.leader for part in topic.partitions.values()] if topic is not None else []
