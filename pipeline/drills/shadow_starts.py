"""Where the replay of each task begins and ends: `shadow_tasks`. Reads journals and the bounds of inputs only.

A replay that begins without rows must begin where the live task did. So it begins, in this order of preference:

    1 without rows, at the genesis or the last reset of the task, if the journal has it and the inputs still have their
      records from there on
    2 without rows, at offset 0, if the journal begins later but every input still has its first record
    3 with the live rows at the oldest entry that checkpoint and journal can restore, and whose inputs are there

A reset of some partitions of a task keeps the rows of the others. So a replay begins at that entry or later, with the
live rows.

`--from` chooses the entry of 3 by a time, or by an input record. The end is the last entry of the task when the drill
begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.entry_body import entry_partitions, reset_partitions
from pipeline.core.inputs import TaskInputs, topic_of
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId, TopicPartition, record_place
from pipeline.core.records import iso_time
from pipeline.core.suggestions import are, counted
from pipeline.drills.scene import RefusedDrillError
from pipeline.drills.shadow_spec import ShadowTask
from pipeline.errors import InputError
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import read_entries
from pipeline.runtime.reset import timestamp_of
from pipeline.runtime.restore.restore_source import registered

__all__ = [
    "START_REFUSALS",
    "LiveTask",
    "Since",
    "common_start_ms",
    "parse_since",
    "shadow_task",
    "start_text",
]

# Another start may help against these.
START_REFUSALS = frozenset({"start-too-early", "input-expired", "replayed-letters"})


_LASTING = 2  # of three checkpoints: the next one deletes the third


class LiveTask(NamedTuple):
    """A task of the live app, its group in the code, and the number of the group's tasks."""

    task: TaskId
    group: DeclaredGroup
    tasks: int

    @property
    def inputs(self) -> TaskInputs:
        """The names of its inputs."""
        return TaskInputs(self.task.number, self.tasks)


@dataclass(frozen=True, slots=True)
class Since:
    """What `--from` chose: a time, or an input record. Nothing: the earliest possible start."""

    time_ms: int | None = None
    place: TopicPartition | None = None
    offset: int = 0


def parse_since(text: str) -> Since:
    """Parse `--from`: empty, a time with an offset from UTC, or TOPIC/PARTITION/OFFSET. Raises RefusedDrillError."""
    if not text:
        return Since()
    record = record_place(text)
    if record is not None:
        return Since(None, *record)
    try:
        return Since(time_ms=timestamp_of(text, "is not a start", "TOPIC/PARTITION/OFFSET, or "))
    except InputError as error:
        raise RefusedDrillError("start-unknown", error.message, hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is kept of an entry of the journal."""

    seq: int
    wall_ms: int
    positions: Mapping[str, int]


@dataclass(slots=True)
class _History:
    """A task's journal.

    `root`: its genesis or last reset of all partitions, if the journal has it. `entries`: from the last reset on.
    `partial`: that reset was one of some partitions. `partitions`: those of the task.
    """

    live: LiveTask
    root: _Entry | None = None
    entries: list[_Entry] = field(default_factory=list)
    partial: bool = False
    tables: Mapping[str, str] = field(default_factory=dict)
    partitions: set[int] = field(default_factory=set)

    @property
    def task(self) -> TaskId:
        return self.live.task

    @property
    def last(self) -> _Entry:
        return self.entries[-1]

    def firsts(self, reader: JournalReader) -> dict[str, int]:
        """The first offset that each input has now, by its name."""
        inputs = self.live.inputs
        places = [
            TopicPartition(topic.name, partition)
            for topic in self.live.group.inputs
            for partition in sorted(self.partitions)
        ]
        return {inputs.name(place): reader.bounds(place).start for place in places}

    def begin_at(self, firsts: Mapping[str, int]) -> None:
        """Complete the positions of the root. An input that is read from its first record has none there."""
        root = self.entries[0]
        if self.root is None or self.partial:
            return
        begun = {
            name: next((e.positions[name] for e in self.entries if name in e.positions), first)
            for name, first in firsts.items()
        }
        self.root = self.entries[0] = _Entry(root.seq, root.wall_ms, {**root.positions, **begun})


def shadow_task(
    live: LiveTask, since: Since, end: int, reader: JournalReader, *, checkpoints: bool
) -> ShadowTask:
    """The part of a task's history to replay.

    Args:
        live: The live task.
        since: What `--from` chose.
        end: The end of the journal that is replayed.
        reader: Reads the journal.
        checkpoints: Whether a checkpoint store is configured.

    Raises:
        RefusedDrillError: Its history cannot be replayed from there; the message says why.
    """
    task, group = live.task, live.group
    history = _read(live, reader, end)
    _check_tables(history, group)
    topics = [topic.name for topic in group.inputs]
    if since.place is not None and since.place.topic not in topics:
        raise RefusedDrillError(
            "not-an-input",
            f"--from names {since.place.topic}, which group {group.name} does not read",
            hint=f"its inputs: {', '.join(topics)}",
        )
    firsts = history.firsts(reader)
    history.begin_at(firsts)
    if since == Since():
        start = _earliest(history, firsts) or _oldest(history, firsts, reader, end, checkpoints=checkpoints)
    else:
        start = _chosen(history, since, firsts)
    with_rows = start.seq > 0 and start is not history.root
    _check_replays(history, group.id.replays_topic, start)
    last = history.last
    boundaries: dict[str, list[int]] = {}
    if len(topics) == 1:
        boundaries = {name: sorted({e.positions.get(name, 0) for e in history.entries}) for name in firsts}
    return ShadowTask(
        task.group,
        task.number,
        live.tasks,
        start.seq if with_rows else 0,
        {name: start.positions.get(name, first) for name, first in firsts.items()},
        {name: last.positions.get(name, 0) for name in firsts},
        last.seq,
        boundaries,
    )


def common_start_ms(tasks: Sequence[LiveTask], reader: JournalReader) -> int | None:
    """A time at which the replay of all these tasks can begin; None if a task has no such entry.

    It is the latest of the times of the tasks. That of a task is its first entry after its last replayed dead letters,
    with the records of its inputs, and not below its second newest checkpoint: its worker truncates the journal with
    each new checkpoint, and the start must still be there when the operator uses it.
    """
    times = []
    for live in tasks:
        task, group = live.task, live.group
        bounds = reader.bounds(task.journal)
        history = _read(live, reader, bounds.stable_end)
        firsts = history.firsts(reader)
        history.begin_at(firsts)
        last = _last_replay(history, group.id.replays_topic)
        kept = registered(task, reader, bounds.start, bounds.stable_end)[:_LASTING]
        since_seq = max(last.seq if last is not None else 0, kept[-1].ref.seq if kept else 0)
        fitting = (e for e in history.entries if e.seq >= since_seq and _has_inputs(e, firsts))
        start = next(fitting, None)
        if start is None:
            return None
        times.append(start.wall_ms)
    return max(times, default=None)


def start_text(tasks: Sequence[ShadowTask]) -> Iterator[str]:
    """What the starts mean, in words, one line for each kind."""
    fresh = sum(not task.seq for task in tasks)
    if fresh:
        yield f"{_replayed(fresh)} from the beginning of the journal, without rows"
    if fresh < len(tasks):
        first = next(task for task in tasks if task.seq)
        yield (
            f"{_replayed(len(tasks) - fresh)} from a later entry, with the live rows of that entry: errors "
            f"before it are in both. Task {first.group}/{first.number} from entry {first.seq}"
        )


def _replayed(tasks: int) -> str:
    return f"{counted(tasks, 'task')} {are(tasks)} replayed"


def _read(live: LiveTask, reader: JournalReader, end: int) -> _History:
    history, task = _History(live), live.task
    for found in read_entries(task, reader, reader.bounds(task.journal).start, end, None):
        entry = found.entry
        kept = _Entry(entry.seq, entry.wall_ms, entry.positions)
        if entry.kind in {EntryKind.GENESIS, EntryKind.RESET}:
            history.partial = reset_partitions(entry) is not None
            history.root = history.root if history.partial else kept
            history.entries.clear()
        history.entries.append(kept)
        history.partitions.update(entry_partitions(entry, live.inputs))
        if entry.identity is not None:
            history.tables = entry.identity.tables
    if not history.entries:
        raise RefusedDrillError(
            "no-history", f"the journal of task {task} has no entry", hint="start a worker of the app first"
        )
    return history


def _check_tables(history: _History, group: DeclaredGroup) -> None:
    """The rows of both apps are compared as bytes, so their types must be the same."""
    now = {name: table.fingerprint for name, table in group.tables.items()}
    changed = sorted(name for name, was in history.tables.items() if now.get(name, was) != was)
    if changed:
        raise RefusedDrillError(
            "table-changed",
            f"table {changed[0]} of group {group.name} has another type in the code than in the live app",
            hint="deploy the code first; its upgrade changes the live rows, too",
        )


def _earliest(history: _History, firsts: Mapping[str, int]) -> _Entry | None:
    """The start without rows; None if the inputs do not have the records from there on any more."""
    if history.partial:
        return None
    if history.root is not None:
        return history.root if _has_inputs(history.root, firsts) else None
    replays = _replays_of(history.entries[0], history.task.group_id.replays_topic)
    if any(firsts.values()) or any(replays.values()):
        return None
    return _Entry(0, 0, dict.fromkeys(firsts, 0))


def _oldest(
    history: _History,
    firsts: Mapping[str, int],
    reader: JournalReader,
    end: int,
    *,
    checkpoints: bool,
) -> _Entry:
    """The oldest entry that can be restored and whose inputs are there. Raises RefusedDrillError."""
    since_seq = history.root.seq if history.root is not None else None
    if since_seq is None and checkpoints:
        kept = registered(history.task, reader, reader.bounds(history.task.journal).start, end)
        usable = [each.ref.seq for each in kept if each.problem is None]
        since_seq = min(usable, default=None)
    if since_seq is not None:
        for entry in history.entries:
            if entry.seq >= since_seq and _has_inputs(entry, firsts):
                return entry
    raise RefusedDrillError(
        "input-expired",
        f"task {history.task} cannot be replayed: its inputs begin at {_listed(history, firsts)}, and no earlier "
        "state can be restored",
        hint="keep the inputs longer, or set worker.checkpoint_store to the store of the workers",
    )


def _chosen(history: _History, since: Since, firsts: Mapping[str, int]) -> _Entry:
    """The last entry up to the chosen time or record. Raises RefusedDrillError."""
    place, time_ms = since.place, since.time_ms
    if place is not None and place.partition in history.partitions:
        name = history.live.inputs.name(place)
        fitting = [each for each in history.entries if each.positions.get(name, 0) <= since.offset]
    elif time_ms is not None:
        fitting = [each for each in history.entries if each.wall_ms <= time_ms]
    else:  # the record is of another task: nothing of this one is replayed
        fitting = [history.last]
    if not fitting:
        first = history.entries[0]
        raise RefusedDrillError(
            "start-too-early",
            f"the history of task {history.task} begins at entry {first.seq} of {iso_time(first.wall_ms)}: its "
            "journal, or its last reset",
            hint="choose a later --from",
        )
    start = fitting[-1]
    if not _has_inputs(start, firsts):
        raise RefusedDrillError(
            "input-expired",
            f"task {history.task} cannot be replayed from entry {start.seq}: its inputs begin at "
            f"{_listed(history, firsts)}",
            hint="choose a later --from",
        )
    return start


def _has_inputs(entry: _Entry, firsts: Mapping[str, int]) -> bool:
    return all(entry.positions.get(name, -1) >= first for name, first in firsts.items())


def _check_replays(history: _History, replays: str, start: _Entry) -> None:
    """Dead letters that were replayed are inputs that the shadow app does not read. Raises RefusedDrillError."""
    last = _last_replay(history, replays)
    if last is not None and last.seq > start.seq:
        raise RefusedDrillError(
            "replayed-letters",
            f"task {history.task} has processed replayed dead letters up to entry {last.seq}, and the shadow app does "
            "not get them",
            hint="choose a later --from",
        )


def _last_replay(history: _History, replays: str) -> _Entry | None:
    """The last entry that has processed replayed dead letters; None if no entry has."""
    found, before = None, dict[str, int]()
    for entry in history.entries:
        positions = _replays_of(entry, replays)
        if any(position > before.get(name, position) for name, position in positions.items()):
            found = entry
        before |= positions
    return found


def _replays_of(entry: _Entry, replays: str) -> dict[str, int]:
    """The positions of an entry in the topic of replays, by input name."""
    return {name: position for name, position in entry.positions.items() if topic_of(name) == replays}


def _listed(history: _History, firsts: Mapping[str, int]) -> str:
    shown = history.live.inputs.shown(firsts)
    return ", ".join(f"{name} offset {first}" for name, first in shown.items())
