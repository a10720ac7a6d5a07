"""Failed records: the dead letters of a group, grouped by the record that they are copies of.

A record has several letters if its replay failed, or if it was handled again after a reset. The newest letter
represents the record: it is the one that is replayed, and its mark shows whether the record is open, replayed or
discarded.

Letters of a record with a key are in one partition, in order. Letters of a record without a key can be in any
partition; the newest one is the one whose handler failed last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.core.dead_letter_count import NOT_NUMBERED, LetterNumber
from pipeline.core.names import GroupId
from pipeline.core.place_hash import place_digest
from pipeline.ops.dead_letters.letters import Choice, DeadLetter, LetterId, read_letters
from pipeline.ops.dead_letters.marks import ReplayMark
from pipeline.ports import TopicInfo
from pipeline.runtime.environment import Environment

__all__ = ["FailedRecord", "State", "failed_records", "newest_letters"]

_TO_THE_END = 2**63 - 1


class State(StrEnum):
    """The state of a failed record. OPEN: its newest letter was neither replayed nor discarded."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(slots=True)
class FailedRecord:
    """A failed record and its letters.

    Attributes:
        newest: The id of the newest letter.
        failed_ms: From the headers of the newest letter.
        replay: From the headers of the newest letter.
        named: The choice has the id of one of the record's letters, or no ids.
        fits: The newest letter meets the other conditions of the choice.
        ids: The ids of all letters.
        partition: The partition of the record, and so of the task that wrote the newest letter.
        number: The number of the newest letter among the letters of that task, if its headers have it.
    """

    newest: LetterId = (-1, -1)
    failed_ms: int = -1
    replay: int = -1
    named: bool = False
    fits: bool = False
    ids: list[LetterId] = field(default_factory=list)
    partition: int = -1
    number: LetterNumber = NOT_NUMBERED

    @property
    def meant(self) -> bool:
        """Whether the choice selects this record."""
        return self.named and self.fits

    def add(self, found: DeadLetter, choice: Choice, *, own: bool) -> None:
        """Add a letter. Letters of a partition must be added in order. `own`: a task of the group wrote it."""
        self.ids.append(found.id)
        self.named = self.named or choice.names(found)
        time = found.letter.failed_ms, found.letter.replay
        if found.partition == self.newest[0] or time > (self.failed_ms, self.replay):
            self.newest, self.fits = found.id, choice.fits(found)
            self.failed_ms, self.replay = time
            self.partition = found.letter.origin.partition
            self.number = found.letter.number if own else NOT_NUMBERED

    def state(self, marks: Mapping[LetterId, ReplayMark]) -> State:
        """The state, from the mark of the newest letter. Older letters can have marks, too, if the replay failed."""
        mark = marks.get(self.newest)
        if mark is None:
            return State.OPEN
        return State.DISCARDED if mark.discarded else State.REPLAYED


def failed_records(
    topic: TopicInfo, group: GroupId, choice: Choice, environment: Environment, *, everything: bool = False
) -> list[FailedRecord]:
    """The failed records, up to the end that the topic has now, in the order of their first letters.

    Keeps a few hundred bytes in memory for each record, without keys and values. If the choice has ids, only the
    partitions that can have letters of the same records are read. `everything`: read all partitions. Raises
    UnreachableError.
    """
    within = None if everything else _within(topic, choice.ids, environment)
    records: dict[bytes, FailedRecord] = {}
    # Letters of earlier releases have no topic id. A later letter of the same record shows it.
    without_id: dict[bytes, str] = {}
    for found in read_letters(topic, Choice(), environment, within):
        letter, origin = found.letter, found.letter.origin
        owner = (letter.app, letter.group) if letter.app else group
        place = place_digest(*owner, origin.topic, origin.partition, origin.offset)
        topic_id = letter.topic_id
        if not topic_id:
            without_id.setdefault(place, "")
        elif place in without_id and without_id[place] in {"", topic_id}:
            without_id[place], topic_id = topic_id, ""
        key = place_digest(place.hex(), topic_id) if topic_id else place
        records.setdefault(key, FailedRecord()).add(found, choice, own=owner == group)
    return list(records.values())


def newest_letters(
    topic: TopicInfo, records: Collection[FailedRecord], environment: Environment
) -> Iterator[tuple[FailedRecord, DeadLetter]]:
    """The newest letter of each of these records, in order per partition. Raises UnreachableError."""
    wanted = {record.newest: record for record in records}
    if wanted:
        for letter in read_letters(topic, Choice(wanted.keys()), environment):
            yield wanted[letter.id], letter


def _within(topic: TopicInfo, ids: Collection[LetterId], environment: Environment) -> dict[int, range] | None:
    """The offsets that can hold letters of the same records as these letters, by partition; None for all."""
    if not ids:
        return None
    first: dict[int, int] = {}
    for found in read_letters(topic, Choice(ids), environment):
        if found.key is None and topic.partitions > 1:
            return None
        first[found.partition] = min(found.offset, first.get(found.partition, found.offset))
    return {partition: range(offset, _TO_THE_END) for partition, offset in first.items()}
