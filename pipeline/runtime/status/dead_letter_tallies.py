"""Dead letters of an app by group, from its journals and tallies, without reading a dead letter.

`core.dead_letter_count` describes the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.dead_letter_count import LetterTally, OpenLetters, decode_tally, open_letters
from pipeline.core.journal_format import Entry, EntryKind
from pipeline.core.names import GroupId, TaskId, TopicPartition, letter_counts_topic
from pipeline.ports import JournalReader, TopicInfo

__all__ = ["GroupLetters", "letters_by_group", "read_tallies"]


@dataclass(frozen=True, slots=True)
class GroupLetters:
    """A group with a dead-letter topic, and its open records."""

    group: GroupId
    letters: OpenLetters


def read_tallies(app: str, reader: JournalReader) -> dict[str, LetterTally]:
    """The tallies of an app, by group. Their topic must exist. Raises UnreachableError."""
    place = TopicPartition(letter_counts_topic(app), 0)
    bounds = reader.bounds(place)
    found = {}
    for _, data in reader.read(place, bounds.start, bounds.stable_end):
        tally = decode_tally(data)
        if tally is not None:
            found[tally.group] = tally
    return found


def letters_by_group(
    entries: Mapping[TaskId, Entry],
    described: Mapping[str, TopicInfo],
    tallies: Mapping[str, LetterTally],
    groups: Sequence[GroupId],
    now_ms: int,
) -> list[GroupLetters]:
    """The groups that have a dead-letter topic. `entries`: the tasks' last entries."""
    found = []
    for group in groups:
        topic = described.get(group.dead_letter_topic)
        if topic is not None:
            tally = tallies.get(group.group)
            counted_ms = tally.wall_ms if tally is not None and tally.topic_id == topic.topic_id else -1
            counts = {
                task.partition: entry.letters
                for task, entry in entries.items()
                if task.group_id == group and not _is_included(entry, counted_ms)
            }
            found.append(GroupLetters(group, open_letters(topic.topic_id, counts, tally, now_ms)))
    return found


def _is_included(entry: Entry, counted_ms: int) -> bool:
    """Whether an entry without a count adds nothing to a tally of this time.

    No record was handled before a genesis entry. A tally includes all dead letters that were written before it.
    """
    return entry.kind is EntryKind.GENESIS or (entry.letters is None and entry.wall_ms <= counted_ms)
