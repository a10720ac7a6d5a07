"""What a reader of the flights app's outputs sees, and when: values by key, and every partition's pauses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import confluent_kafka
from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is public

__all__ = ["Outputs", "Poll", "TopicPartition", "opened"]

_TIMEOUT_S = 30.0
_STEADY = 10  # outputs a second: of a partition with fewer a pause says nothing


class TopicPartition(NamedTuple):
    """A partition of a topic, as a key of dictionaries."""

    topic: str
    partition: int


@dataclass
class Outputs:
    """Everything that was committed so far, as it was written. `where`: the partitions in which a key was found."""

    topics: tuple[str, ...]
    values: dict[str, dict[str, list[bytes]]] = field(default_factory=dict)
    where: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    arrivals: dict[TopicPartition, list[tuple[float, int]]] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        for topic in self.topics:
            self.values[topic], self.where[topic] = {}, {}

    def steady(self, partitions: Iterable[TopicPartition], since_s: float) -> list[TopicPartition]:
        """Those that have had so many outputs since then that they pause only for a reason."""
        least = _STEADY * (time.monotonic() - since_s)
        return [p for p in partitions if self._position(p) >= least]

    def first_beyond(self, partition: TopicPartition, end: int) -> float | None:
        """When the first output at or after this end was read."""
        found = self.arrivals.get(partition, [])
        return next((at for at, position in found if position > end), None)

    def longest_pause_s(self, partitions: Iterable[TopicPartition], since_s: float, until_s: float) -> float:
        """Between two reads with outputs of one partition, of which the second lies in that time."""
        longest = 0.0
        for partition in partitions:
            times = [at for at, _ in self.arrivals.get(partition, [])] + [until_s]
            for before, after in itertools.pairwise(at for at in times if at <= until_s):
                if after >= since_s:
                    longest = max(longest, after - before)
        return longest

    def _position(self, partition: TopicPartition) -> int:
        found = self.arrivals.get(partition)
        return found[-1][1] if found else 0


class Poll:
    """Reads what is committed, a batch at a time."""

    def __init__(self, consumer: confluent_kafka.Consumer, admin: AdminClient) -> None:
        self._consumer = consumer
        self._admin = admin

    def __call__(self, into: Outputs) -> int:
        """How many outputs there were. Raises KafkaException for a partition that cannot be read."""
        records = self._consumer.consume(20_000, 0.05)
        now = time.monotonic()
        positions: dict[TopicPartition, int] = {}
        for record in records:
            if (error := record.error()) is not None:
                raise KafkaException(error)
            self._add(record, into, positions)
        for partition, position in positions.items():
            into.arrivals.setdefault(partition, []).append((now, position))
        into.count += len(records)
        return len(records)

    @staticmethod
    def _add(record: Any, into: Outputs, positions: dict[TopicPartition, int]) -> None:
        place, key = TopicPartition(record.topic(), record.partition()), record.key().decode()
        into.values[place.topic].setdefault(key, []).append(record.value())
        into.where[place.topic].setdefault(key, set()).add(place.partition)
        positions[place] = record.offset() + 1

    def loaded(self, partitions: Iterable[TopicPartition]) -> int:
        """The sum of the committed ends of input partitions: how far they are loaded."""
        return sum(self._ends(partitions, IsolationLevel.READ_COMMITTED).values())

    def ends(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The end of each, with records that are not committed yet: a commit under way counts as done before."""
        return self._ends(partitions, IsolationLevel.READ_UNCOMMITTED)

    def _ends(self, partitions: Iterable[TopicPartition], level: IsolationLevel) -> dict[TopicPartition, int]:
        asked = {
            confluent_kafka.TopicPartition(*partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for partition in partitions
        }
        answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=_TIMEOUT_S)
        return {
            TopicPartition(partition.topic, partition.partition): answer.result(_TIMEOUT_S).offset
            for partition, answer in answers.items()
        }


@contextmanager
def opened(servers: str, partitions: Iterable[TopicPartition]) -> Iterator[Poll]:
    """A reader of these partitions from their beginning."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "flights-demo-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 3,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(*partition, 0) for partition in partitions])
    try:
        yield Poll(consumer, AdminClient({"bootstrap.servers": servers}))
    finally:
        consumer.close()
