"""Dead letters of an app by group, from its journals and tallies, without reading a dead letter.

`core.dead_letter_count` describes the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.dead_letter_count import LetterCount, LetterTally, OpenLetters, decode_tally, open_letters
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
    counts: Mapping[TaskId, LetterCount | None],
    described: Mapping[str, TopicInfo],
    tallies: Mapping[str, LetterTally],
    groups: Sequence[GroupId],
    now_ms: int,
) -> list[GroupLetters]:
    """The groups that have a dead-letter topic. `counts`: those of the tasks' last entries, as for `open_letters`."""
    found = []
    for group in groups:
        topic = described.get(group.dead_letter_topic)
        if topic is not None:
            of_tasks = {task.partition: count for task, count in counts.items() if task.group_id == group}
            letters = open_letters(topic.topic_id, of_tasks, tallies.get(group.group), now_ms)
            found.append(GroupLetters(group, letters))
    return found
