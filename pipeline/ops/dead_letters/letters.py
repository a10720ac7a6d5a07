"""Reads the dead letters of a group from Kafka, and selects some of them.

The id of a letter is its partition and offset in the dead-letter topic, `PARTITION:OFFSET`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.dead_letters import Headers, Letter, read_letter
from pipeline.core.headers import readable_headers
from pipeline.core.names import DEAD_LETTER_READER, GroupId, TopicPartition
from pipeline.errors import InputError
from pipeline.ops.reading import committed_records
from pipeline.ports import Cluster, Record, TopicInfo
from pipeline.runtime.environment import Environment

__all__ = [
    "Choice",
    "DeadLetter",
    "LetterId",
    "dead_letter_of",
    "dead_letter_topic",
    "letter_id",
    "places_of",
    "read_letters",
]

LetterId = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    `letter`: the facts in its headers. `key`, `value`, `headers`: those of the record that failed.
    """

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
    """The id in the form `PARTITION:OFFSET`. Raises InputError if the text has another form."""
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal()):
        raise InputError(
            f"{text!r} is not the id of a dead letter",
            hint="an id has the form PARTITION:OFFSET, for example 0:17",
        )
    return int(partition), int(offset)


@dataclass(frozen=True, slots=True)
class Choice:
    """A selection of letters. A condition that is not given excludes no letter.

    `ids`: only these letters. `partition`: the partition of the record. `error`: a part of the error's text.
    """

    ids: Collection[LetterId] = ()
    partition: int | None = None
    error: str = ""

    def takes(self, found: DeadLetter) -> bool:
        """Whether the letter meets all conditions."""
        return self.names(found) and self.fits(found)

    def names(self, found: DeadLetter) -> bool:
        """Whether the letter's id is given, or no id is."""
        return not self.ids or found.id in self.ids

    def fits(self, found: DeadLetter) -> bool:
        """Whether the letter meets the conditions on partition and error."""
        if self.partition is not None and found.letter.origin.partition != self.partition:
            return False
        return self.error in found.letter.error


def dead_letter_topic(group: GroupId, cluster: Cluster) -> TopicInfo:
    """The dead-letter topic of a group. Raises InputError if it does not exist."""
    found = cluster.describe([group.dead_letter_topic]).get(group.dead_letter_topic)
    if found is None:
        raise InputError(
            f"group {group.group} of app {group.app} has no dead letters: there is no topic {group.dead_letter_topic}",
            hint="a worker creates the topic if a handler of the group has on_error='dead_letter'",
        )
    return found


def places_of(topic: TopicInfo) -> list[TopicPartition]:
    """The partitions of a topic."""
    return [TopicPartition(topic.name, number) for number in range(topic.partitions)]


def read_letters(
    topic: TopicInfo, choice: Choice, environment: Environment, within: Mapping[int, range] | None = None
) -> Iterator[DeadLetter]:
    """The selected letters, up to the end that the topic has now, in order per partition.

    `within`: the offsets to read, by partition. A record that is not a dead letter is skipped. Raises UnreachableError.
    """
    within = _within(topic, choice.ids) if within is None else within
    with (
        closing(environment.journals()) as reader,
        closing(environment.sources.open(DEAD_LETTER_READER)) as source,
    ):
        for record in committed_records(topic, reader, source, environment.clock, within):
            found = dead_letter_of(record)
            if found is not None and choice.takes(found):
                yield found


def _within(topic: TopicInfo, ids: Collection[LetterId]) -> dict[int, range] | None:
    """The offsets to read for these ids, by partition, so that the rest of the topic is not read; None for all."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in ids:
        if partition < topic.partitions:
            offsets.setdefault(partition, []).append(offset)
    return {number: range(min(each), max(each) + 1) for number, each in offsets.items()} if ids else None


def dead_letter_of(record: Record) -> DeadLetter | None:
    """The dead letter in a record; None if it is another record."""
    read = read_letter(readable_headers(record)[0])
    if read is None:
        return None
    letter, headers = read
    return DeadLetter(record.partition(), record.offset(), letter, record.key(), record.value(), headers)
