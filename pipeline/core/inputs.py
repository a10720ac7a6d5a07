"""The inputs of a task, and the keys of their rows: `TaskInputs`, `row_prefix`. Pure.

A group has T tasks, and its input topics have P partitions each. Task t reads the partitions p with p mod T = t of each
topic. An *input* is one of these partitions. Its name does not depend on the task: the topic's name for the first
partition of a task, and `topic/N` for the one after N others. So a task with one partition of each topic names its
inputs like the topics. No topic has a slash in its name.

Rows belong to a partition: a handler sees only those of the partition of its record, whatever the number of tasks is.
In a journal of format 2, the key of a row begins with the partition, so all rows of a partition are one range:

    0x01 | partition u16, big-endian | key of format 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from pipeline.core.names import TopicPartition
from pipeline.errors import InvariantError

__all__ = [
    "MAX_PARTITIONS",
    "ROW_PREFIX_BYTES",
    "TaskInputs",
    "default_tasks",
    "input_names",
    "ordinal_of",
    "packed",
    "row_prefix",
    "topic_of",
    "unpacked",
]

MAX_PARTITIONS = 65_536  # of a topic, in format 2
DEFAULT_TASKS = 32
ROW_PREFIX_BYTES = 3
_ROWS = b"\x01"


def default_tasks(partitions: int) -> int:
    """The number of tasks of a new group that does not choose one."""
    return min(partitions, DEFAULT_TASKS)


def row_prefix(partition: int) -> bytes:
    """The beginning of the keys of all rows of a partition, in format 2."""
    if not 0 <= partition < MAX_PARTITIONS:
        raise InvariantError(f"partition {partition} has no rows: the highest is {MAX_PARTITIONS - 1}")
    return _ROWS + partition.to_bytes(2, "big")


@lru_cache(maxsize=1024)
def input_names(topic: str, count: int) -> tuple[str, ...]:
    """The names of a task's inputs of one topic, in the order of their partitions."""
    return (topic, *(f"{topic}/{ordinal}" for ordinal in range(1, count)))[:count]


def _split(name: str) -> tuple[str, int]:
    """The topic and the number of an input. Copies of topics have positions with names of their own."""
    topic, slash, ordinal = name.rpartition("/")
    return (topic, int(ordinal)) if slash and ordinal.isdecimal() else (name, 0)


def topic_of(name: str) -> str:
    """The topic of an input."""
    return _split(name)[0]


def ordinal_of(name: str) -> int:
    """The number of the input among those of its topic, in one task, from 0."""
    return _split(name)[1]


class TaskInputs(NamedTuple):
    """The inputs of task `number` of a group with `tasks` tasks. `tasks` 0: one for each partition."""

    number: int
    tasks: int

    def partitions(self, count: int) -> Sequence[int]:
        """Its partitions of a topic that has `count`."""
        return range(self.number, count, self.tasks) if self.tasks else (self.number,)

    def owns(self, partition: int) -> bool:
        """Whether the task reads this partition of its topics."""
        return partition % self.tasks == self.number if self.tasks else partition == self.number

    def name(self, place: TopicPartition) -> str:
        """The name of an input. Raises InvariantError for a partition of another task."""
        ordinal, other = divmod(place.partition - self.number, self.tasks or 1)
        if other or ordinal < 0 or (ordinal and not self.tasks):
            raise InvariantError(f"task {self.number} of {self.tasks} does not read {place}")
        return f"{place.topic}/{ordinal}" if ordinal else place.topic

    def place(self, name: str) -> TopicPartition:
        """The partition that an input's name stands for."""
        topic, ordinal = _split(name)
        return TopicPartition(topic, self.number + ordinal * self.tasks)

    def places(self, positions: Mapping[str, int]) -> dict[TopicPartition, int]:
        """Positions by partition."""
        return {self.place(name): position for name, position in positions.items()}

    def numbers(self, positions: Iterable[str]) -> list[int]:
        """The partitions that inputs with these names are in, in order."""
        return sorted({self.place(name).partition for name in positions})

    def shown(self, positions: Mapping[str, int]) -> dict[str, int]:
        """Positions for people: by topic, or by partition where the task has several of a topic."""
        return {self.label(name, positions): position for name, position in positions.items()}

    def label(self, name: str, names: Iterable[str]) -> str:
        """An input for people, as in `shown`. `names`: those of all inputs of the task."""
        return str(self.place(name)) if any(map(ordinal_of, names)) else name

    def all(self, topics: Mapping[str, int]) -> dict[str, TopicPartition]:
        """All inputs by name. `topics`: the number of partitions of each."""
        return {
            name: TopicPartition(topic, partition)
            for topic, count in topics.items()
            for partition in self.partitions(count)
            for name in (self.name(TopicPartition(topic, partition)),)
        }


def packed(positions: Mapping[str, int]) -> dict[str, list[int]]:
    """Positions as format 2 stores them: by topic, in the order of the partitions.

    Raises InvariantError if one is missing between two others.
    """
    counts: dict[str, int] = {}
    for name in positions:
        topic = topic_of(name)
        counts[topic] = counts.get(topic, 0) + 1
    try:
        return {
            topic: [positions[name] for name in input_names(topic, count)] for topic, count in counts.items()
        }
    except KeyError as error:
        raise InvariantError(f"there is no position of input {error} between the others") from error


def unpacked(stored: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Positions by input name, from what format 2 stores."""
    positions: dict[str, int] = {}
    for topic, offsets in stored.items():
        listed = tuple(offsets)
        positions.update(zip(input_names(topic, len(listed)), listed, strict=True))
    return positions
