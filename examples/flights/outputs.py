"""What a reader of the flights app's outputs sees, and when: values by key, and every partition's pauses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.source import KafkaSources
from pipeline.ports import JournalReader, Source

__all__ = ["Outputs", "Poll", "opened"]

_STEADY = 10  # outputs a second: of a partition with fewer a pause says nothing


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

    def __init__(self, source: Source, reader: JournalReader) -> None:
        self._source = source
        self._reader = reader

    def __call__(self, into: Outputs) -> int:
        """How many outputs there were. Raises what a partition failed with."""
        polled = self._source.poll(20_000, 0.05)
        if polled.failures:
            raise polled.failures[0].error
        now = time.monotonic()
        positions: dict[TopicPartition, int] = {}
        for record in polled.records:
            topic, key = record.topic(), record.key().decode()
            into.values[topic].setdefault(key, []).append(record.value())
            into.where[topic].setdefault(key, set()).add(record.partition())
            positions[TopicPartition(topic, record.partition())] = record.offset() + 1
        for partition, position in positions.items():
            into.arrivals.setdefault(partition, []).append((now, position))
        into.count += len(polled.records)
        return len(polled.records)

    def loaded(self, partitions: list[TopicPartition]) -> int:
        """How far input partitions are loaded: their committed ends, added up."""
        return sum(self._reader.stable_ends(partitions).values())

    def ends(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The end of each, with what is not committed: a commit on its way counts as done before."""
        return {partition: self._reader.bounds(partition).end for partition in partitions}


@contextmanager
def opened(servers: str, partitions: Iterable[TopicPartition]) -> Iterator[Poll]:
    """A reader of these partitions from their beginning."""
    settings = KafkaSettings(servers)
    source = KafkaSources(settings).open("flights-demo-reader")
    source.assign(dict.fromkeys(partitions, 0))
    reader = KafkaJournalReader(settings)
    try:
        yield Poll(source, reader)
    finally:
        source.close()
        reader.close()
