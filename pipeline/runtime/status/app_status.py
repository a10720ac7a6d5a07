"""The status of an app: `AppStatus` and its parts.

The dead letters are counted by group from the journals and tallies, without reading a dead letter.
`core.dead_letter_count` describes the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline.core.dead_letter_count import LetterTally, OpenLetters, decode_tally, open_letters
from pipeline.core.journal_format import Entry, EntryKind
from pipeline.core.names import GroupId, TaskId, TopicPartition, letter_counts_topic
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.core.suggestions import Problem
from pipeline.ports import JournalReader, TopicInfo

__all__ = [
    "AppStatus",
    "GroupLetters",
    "TaskPhase",
    "TaskStatus",
    "WorkerStatus",
    "letters_by_group",
    "read_tallies",
]


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
                task.number: entry.letters
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


class TaskPhase(StrEnum):
    """The phase of a task. UNOWNED: no worker runs it; if workers are alive, one of them will.

    RETIRED: another app has replaced its app.
    """

    LIVE = "live"
    RESTORING = "restoring"
    MOVING = "moving"
    UNOWNED = "unowned"
    FAILED = "failed"
    NEW = "new"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """`worker`: the current or last worker. `positions`: the next input offsets, by topic, or by partition if the task
    has several. `entry_ms`: time of the last entry.

    `partitions`: those that it reads of each input topic; empty if they are unknown. `clock_ms`: its event clock at the
    last entry; None if it keeps none.

    `checkpoint_ms`: the time of the newest checkpoint; 0 if there is none. `restore_s`: predicted, on an empty disk.
    `database`: that of a sink task, whose `seq` is its epoch; empty for a task with a journal. `problem`: why it failed
    or waits. `retrying`: it waits because a record is retried. `records_per_s`: input offsets per second of its last
    commits (`reading.RATE_S`); None if unknown.
    """

    task: TaskId
    phase: TaskPhase
    worker: str
    seq: int
    lag: int
    positions: Mapping[str, int]
    entry_ms: int
    next_worker: str = ""
    problem: str = ""
    checkpoint_ms: int = 0
    checkpoint_bytes: int = 0
    journal_bytes: int = 0  # after the checkpoint
    restore_s: float = 0.0
    database: str = ""
    records_per_s: float | None = None
    retrying: bool = False
    partitions: Sequence[int] = ()
    clock_ms: int | None = None

    @property
    def clock_behind_s(self) -> float | None:
        """How far the event clock was behind the wall clock at the last entry; None if it keeps none."""
        return None if self.clock_ms is None else max(0, self.entry_ms - self.clock_ms) / 1000

    @property
    def topics(self) -> list[str]:
        """The topics that it has positions in."""
        return list(dict.fromkeys(name.partition("[")[0] for name in self.positions))


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker. `waiting`: workers of another version must leave before it gets tasks.

    `rings`: the groups that it runs; workers with an equal value share the tasks of a group. `watched`: whether a peer
    would see its end at once; otherwise, Kafka detects it.
    """

    worker: str
    process: str
    weight: int
    tasks: int
    waiting: bool
    rings: Mapping[str, str] = field(default_factory=dict)
    watched: bool = True


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The status. `problems`: for the operator. `letters`: those of the groups that have a dead-letter topic.

    `deferred`: the live workers on which a group has not started. `speeds`: how fast live workers have recovered.
    """

    app: str
    tasks: Sequence[TaskStatus]
    workers: Sequence[WorkerStatus]
    problems: Sequence[Problem]
    letters: Sequence[GroupLetters] = ()
    deferred: Mapping[GroupId, Sequence[str]] = field(default_factory=dict)
    speeds: Mapping[str, RecoverySpeed] = field(default_factory=dict)

    def named(self, target: str) -> AppStatus:
        """The same, with the app as `target` in the commands of the hints, so that they can be copied."""
        problems = [replace(each, hint=each.hint.replace("MODULE:APP", target)) for each in self.problems]
        return replace(self, problems=problems)
