"""The port of the checker to a Kafka, and the records that it has read so far: `Log`, `LiveReader`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from typing import NamedTuple, Protocol

__all__ = [
    "Headers",
    "Incarnation",
    "LiveReader",
    "Log",
    "Place",
    "Read",
    "Record",
    "TopicFacts",
    "readable_headers",
]

Headers = Sequence[tuple[str, bytes | None]]

_headers = methodcaller("headers")


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(NamedTuple):
    """One committed record."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class TopicFacts(NamedTuple):
    """`topic_id` differs when a topic is deleted and created again under its name."""

    topic_id: str
    partitions: int


class Read(NamedTuple):
    """The records of a partition from an offset on, for a committed reader.

    `begin`: the first offset that still exists. `stable_end`: the last stable offset. `end`: the high watermark.
    `hidden`: committed records may follow a transaction that is still open.
    """

    records: Sequence[Record]
    begin: int
    stable_end: int
    end: int
    hidden: bool


def readable_headers(message: object) -> Headers:
    """The headers of a client's message; empty if the client cannot decode a name.

    The headers of such a message are read only once, because a second call returns a list with a null pointer. The call
    is made from C code, which detects a result that comes with an exception.
    """
    try:
        return tuple(_headers(message) or ())
    except SystemError:
        return ()


class Log(Protocol):
    """Reads a Kafka."""

    def topics(self) -> Mapping[str, TopicFacts]:
        """All relevant topics, by name."""
        ...

    def read(self, starts: Mapping[Place, int]) -> Mapping[Place, Read]:
        """The committed records of each partition, from the given offset to its last stable offset."""
        ...


@dataclass
class Incarnation:
    """The records of a partition between a topic's creation and its deletion.

    `first`: the start of its log at the first read. `records`: also those that have been deleted since.
    """

    topic_id: str
    first: int
    records: list[Record] = field(default_factory=list)
    next_offset: int = 0
    last: Read | None = None


class LiveReader:
    """Follows a log: each `poll` reads only new records. Keeps records that are truncated or deleted later."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.partitions: dict[str, int] = {}
        self.seen: dict[Place, list[Incarnation]] = {}

    def poll(self) -> Iterable[tuple[Place, Incarnation, Sequence[Record]]]:
        """(partition, incarnation, new records) of all partitions with new records."""
        topics = self._log.topics()
        starts: dict[Place, int] = {}
        for name, facts in topics.items():
            self.partitions[name] = facts.partitions
            for number in range(facts.partitions):
                place = Place(name, number)
                incarnations = self.seen.setdefault(place, [])
                if not incarnations or incarnations[-1].topic_id != facts.topic_id:
                    incarnations.append(Incarnation(facts.topic_id, -1))
                starts[place] = incarnations[-1].next_offset
        found = []
        for place, read in self._log.read(starts).items():
            incarnation = self.seen[place][-1]
            if incarnation.first < 0:
                incarnation.first = read.begin
            incarnation.last = read
            incarnation.next_offset = max(starts[place], read.stable_end)
            if read.records:
                incarnation.records.extend(read.records)
                found.append((place, incarnation, read.records))
        return found

    def open_ended(self) -> list[str]:
        """Partitions with an open transaction, as text."""
        return [
            f"{place}: the last stable offset is {last.stable_end}, the high watermark {last.end}"
            for place, incarnations in self.seen.items()
            if (last := incarnations[-1].last) is not None and last.stable_end != last.end
        ]

    def compare(self, log: Log) -> list[str]:
        """Differences between the followed records and a new read of `log`, as text."""
        differences = []
        for place, read in log.read(dict.fromkeys(self.seen, 0)).items():
            followed = [r for r in self.seen[place][-1].records if r.offset >= read.begin]
            if followed != list(read.records):
                at = _first_difference(followed, read.records)
                differences.append(
                    f"{place}: a fresh reader sees other records than the live one, from offset {at}"
                )
        return differences


def _first_difference(followed: Sequence[Record], fresh: Sequence[Record]) -> int:
    for one, other in zip(followed, fresh, strict=False):
        if one != other:
            return min(one.offset, other.offset)
    longer = max(followed, fresh, key=len)
    return longer[min(len(followed), len(fresh))].offset
