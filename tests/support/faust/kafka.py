"""The Kafka of a run: creates topics, sends inputs, and reads everything that is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.support.kafka.producing import ordered_producer

__all__ = ["Input", "Message", "Reader", "create_topics", "send"]

_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Input:
    """A record to send. `at_ms` 0: the producer's time."""

    topic: str
    key: str | None
    value: bytes
    at_ms: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A committed record."""

    partition: int
    key: bytes | None
    value: bytes | None
    at_ms: int
    headers: tuple[tuple[str, bytes], ...] = field(default=())


def create_topics(servers: str, topics: Mapping[str, int]) -> None:
    """Create topics, by name with their partitions."""
    with closing(KafkaCluster(KafkaSettings(servers))) as cluster:
        # Records have times of the past; with the default, the broker would delete them during the test.
        cluster.create(
            [TopicSpec(name, count, config={"retention.ms": "-1"}) for name, count in topics.items()]
        )


def send(
    servers: str, prefix: str, inputs: Iterable[Input], pause: Callable[[], object] = lambda: None
) -> None:
    """Send records in order. `pause` is called after each."""
    producer = ordered_producer(servers)
    for each in inputs:
        producer.produce(
            prefix + each.topic,
            each.value,
            each.key,
            timestamp=each.at_ms,
            headers=[(name, value) for name, value in each.headers],
        )
        producer.poll(0)
        pause()
    assert producer.flush(_ANSWER_S) == 0


class Reader:
    """Reads the committed records of topics, each time from where it was."""

    def __init__(self, servers: str, topics: Mapping[str, int]) -> None:
        self._places = [
            TopicPartition(name, number) for name, count in topics.items() for number in range(count)
        ]
        self._ends = KafkaJournalReader(KafkaSettings(servers))
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "faust-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        self._consumer.assign([ClientPartition(*place, 0) for place in self._places])
        self.messages: dict[str, list[Message]] = {name: [] for name in topics}

    def read(self) -> dict[str, list[Message]]:
        """Read up to the present end. Returns all messages by topic; within a partition they are in order."""
        left = {place: end for place, end in self._ends.stable_ends(self._places).items() if end}
        deadline = time.monotonic() + _ANSWER_S
        while left:
            assert time.monotonic() < deadline, f"cannot be read: {left}"
            for at in self._consumer.position([ClientPartition(*place) for place in left]):
                if at.offset >= left[TopicPartition(at.topic, at.partition)]:
                    del left[TopicPartition(at.topic, at.partition)]
            if left:
                self._take()
        return self.messages

    def _take(self) -> None:
        for message in self._consumer.consume(5_000, 0.05):
            assert message.error() is None, message.error()
            found: Any = message.headers() or []
            headers = tuple((name, bytes(value or b"")) for name, value in found)
            self.messages[str(message.topic())].append(
                Message(
                    message.partition() or 0, message.key(), message.value(), message.timestamp()[1], headers
                )
            )

    def close(self) -> None:
        self._consumer.close()
        self._ends.close()
