"""The dead letters of a group, as they are in Kafka, and which of them are meant.

A letter is named by its place in the dead-letter topic, `PARTITION:OFFSET`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.dead_letters import Headers, Letter, read_letter
from pipeline.core.headers import readable_headers
from pipeline.core.names import GroupId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.reading import committed_records
from pipeline.ports import Cluster, Record, TopicInfo
from pipeline.runtime.environment import Environment

__all__ = ["Choice", "DeadLetter", "LetterId", "dead_letter_topic", "letter_id", "places_of", "read_letters"]

_READER = "pipeline.deadletters"  # the client wants a group; nothing is ever committed to it
LetterId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter: what its headers say, and the record that it keeps. `headers`: the record's own."""

    partition: int
    offset: int
    letter: Letter
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def id(self) -> LetterId:
        return self.partition, self.offset

    @property
    def name(self) -> str:
        return f"{self.partition}:{self.offset}"


def letter_id(text: str) -> LetterId:
    """The place that a person has typed. Raises InputError."""
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal()):
        raise InputError(f"{text!r} is no dead letter", hint="they are named PARTITION:OFFSET, as in 0:17")
    return int(partition), int(offset)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; whatever is left out excludes none.

    `ids`: those alone. `partition`: of the record, and so of its task. `error`: a part of the error's text.
    """

    ids: Collection[LetterId] = ()
    partition: int | None = None
    error: str = ""

    def takes(self, found: DeadLetter) -> bool:
        """Whether it is one of them."""
        return self.names(found) and self.fits(found)

    def names(self, found: DeadLetter) -> bool:
        """Whether it is named, or no letter is."""
        return not self.ids or found.id in self.ids

    def fits(self, found: DeadLetter) -> bool:
        """Whether its partition and error are meant."""
        if self.partition is not None and found.letter.origin.partition != self.partition:
            return False
        return self.error in found.letter.error


def dead_letter_topic(group: GroupId, cluster: Cluster) -> TopicInfo:
    """Where a group's letters are. Raises InputError when it never had any."""
    found = cluster.describe([group.dead_letter_topic]).get(group.dead_letter_topic)
    if found is None:
        raise InputError(
            f"group {group.group} of app {group.app} has no dead letters: there is no topic {group.dead_letter_topic}",
            hint="a worker creates it when a handler of the group has on_error='dead_letter'",
        )
    return found


def places_of(topic: TopicInfo) -> list[TopicPartition]:
    """The partitions of a topic."""
    return [TopicPartition(topic.name, number) for number in range(topic.partitions)]


def read_letters(
    topic: TopicInfo, choice: Choice, environment: Environment, within: Mapping[int, range] | None = None
) -> Iterator[DeadLetter]:
    """Those that are meant, up to the topic's end as of now, in order per partition.

    `within`: offsets by partition; only these are read. A record that another program has written is skipped.
    Raises UnreachableError.
    """
    within = _within(topic, choice.ids) if within is None else within
    with (
        closing(environment.journals()) as reader,
        closing(environment.sources.open(_READER)) as source,
    ):
        for record in committed_records(topic, reader, source, environment.clock, within):
            found = _dead_letter(record)
            if found is not None and choice.takes(found):
                yield found


def _within(topic: TopicInfo, ids: Collection[LetterId]) -> dict[int, range] | None:
    """Where to look for letters that are named: a topic of a million need not be read for one."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in ids:
        if partition < topic.partitions:
            offsets.setdefault(partition, []).append(offset)
    return {number: range(min(each), max(each) + 1) for number, each in offsets.items()} if ids else None


def _dead_letter(record: Record) -> DeadLetter | None:
    read = read_letter(readable_headers(record)[0])
    if read is None:
        return None
    letter, headers = read
    return DeadLetter(record.partition(), record.offset(), letter, record.key(), record.value(), headers)
