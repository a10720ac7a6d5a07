"""Where the replay of each task begins and ends: `shadow_tasks`. Reads journals and the bounds of inputs only.

A replay that begins without rows must begin where the live task did. So it begins, in this order of preference:

    1 without rows, at the genesis or the last reset of the task, if the journal has it and the inputs still have their
      records from there on
    2 without rows, at offset 0, if the journal begins later but every input still has its first record
    3 with the live rows at the oldest entry that checkpoint and journal can restore, and whose inputs are there

`--from` chooses the entry of 3 by a time, or by an input record. The end is the last entry of the task when the drill
begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.api.group import DeclaredGroup
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId, TopicPartition, record_place
from pipeline.core.records import iso_time
from pipeline.drills.drill import RefusedDrillError
from pipeline.drills.shadow_spec import ShadowTask
from pipeline.errors import InputError
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import read_entries
from pipeline.runtime.reset import timestamp_of
from pipeline.runtime.restore.restore_source import registered

__all__ = ["START_REFUSALS", "Since", "common_start_ms", "parse_since", "shadow_task", "start_text"]

# Another start may help against these.
START_REFUSALS = frozenset({"start-too-early", "input-expired", "replayed-letters"})


_LASTING = 2  # of three checkpoints: the next one deletes the third


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
    """A task's journal. `root`: its genesis or last reset, if the journal has it. `entries`: from there on."""

    task: TaskId
    root: _Entry | None = None
    entries: list[_Entry] = field(default_factory=list)
    tables: Mapping[str, str] = field(default_factory=dict)

    @property
    def last(self) -> _Entry:
        return self.entries[-1]

    def begin_at(self, inputs: Sequence[str], firsts: Mapping[str, int]) -> None:
        """Complete the positions of the root. An input that is read from its first record has none there."""
        root = self.entries[0]
        begun = {
            topic: next((e.positions[topic] for e in self.entries if topic in e.positions), firsts[topic])
            for topic in inputs
        }
        self.root = self.entries[0] = _Entry(root.seq, root.wall_ms, {**root.positions, **begun})


def shadow_task(
    task: TaskId, group: DeclaredGroup, since: Since, end: int, reader: JournalReader, *, checkpoints: bool
) -> ShadowTask:
    """The part of a task's history to replay.

    Args:
        task: The live task.
        group: Its declaration.
        since: What `--from` chose.
        end: The end of the journal that is replayed.
        reader: Reads the journal.
        checkpoints: Whether a checkpoint store is configured.

    Raises:
        RefusedDrillError: Its history cannot be replayed from there; the message says why.
    """
    history = _read(task, reader, end)
    _check_tables(history, group)
    inputs = [topic.name for topic in group.inputs]
    firsts = {topic: reader.bounds(TopicPartition(topic, task.number)).start for topic in inputs}
    if since.place is not None and since.place.topic not in inputs:
        raise RefusedDrillError(
            "not-an-input",
            f"--from names {since.place.topic}, which group {group.name} does not read",
            hint=f"its inputs: {', '.join(inputs)}",
        )
    if history.root is not None:
        history.begin_at(inputs, firsts)
    if since == Since():
        start = _earliest(history, inputs, firsts) or _oldest(
            history, inputs, firsts, reader, end, checkpoints=checkpoints
        )
    else:
        start = _chosen(history, since, inputs, firsts)
    with_rows = start.seq > 0 and start is not history.root
    _check_replays(history, group.id.replays_topic, start)
    last = history.last
    boundaries: list[int] = []
    if len(inputs) == 1:
        boundaries = sorted({entry.positions.get(inputs[0], 0) for entry in history.entries})
    return ShadowTask(
        task.group,
        task.number,
        start.seq if with_rows else 0,
        {topic: start.positions.get(topic, firsts[topic]) for topic in inputs},
        {topic: last.positions.get(topic, 0) for topic in inputs},
        last.seq,
        boundaries,
    )


def common_start_ms(tasks: Sequence[tuple[TaskId, DeclaredGroup]], reader: JournalReader) -> int | None:
    """A time at which the replay of all these tasks can begin; None if a task has no such entry.

    It is the latest of the times of the tasks. That of a task is its first entry after its last replayed dead letters,
    with the records of its inputs, and not below its second newest checkpoint: its worker truncates the journal with
    each new checkpoint, and the start must still be there when the operator uses it.
    """
    times = []
    for task, group in tasks:
        bounds = reader.bounds(task.journal)
        history = _read(task, reader, bounds.stable_end)
        inputs = [topic.name for topic in group.inputs]
        firsts = {topic: reader.bounds(TopicPartition(topic, task.number)).start for topic in inputs}
        if history.root is not None:
            history.begin_at(inputs, firsts)
        last = _last_replay(history, group.id.replays_topic)
        kept = registered(task, reader, bounds.start, bounds.stable_end)[:_LASTING]
        since_seq = max(last.seq if last is not None else 0, kept[-1].ref.seq if kept else 0)
        fitting = (e for e in history.entries if e.seq >= since_seq and _has_inputs(e, inputs, firsts))
        start = next(fitting, None)
        if start is None:
            return None
        times.append(start.wall_ms)
    return max(times, default=None)


def start_text(tasks: Sequence[ShadowTask]) -> Iterator[str]:
    """What the starts mean, in words, one line for each kind."""
    fresh = sum(not task.seq for task in tasks)
    if fresh:
        yield f"{fresh} tasks are replayed from their beginning, without rows"
    if fresh < len(tasks):
        first = next(task for task in tasks if task.seq)
        yield (
            f"{len(tasks) - fresh} tasks are replayed from a later entry, with the live rows of that entry: errors "
            f"before it are in both. Task {first.group}/{first.partition} from entry {first.seq}"
        )


def _read(task: TaskId, reader: JournalReader, end: int) -> _History:
    history = _History(task)
    for found in read_entries(task, reader, reader.bounds(task.journal).start, end, None):
        entry = found.entry
        kept = _Entry(entry.seq, entry.wall_ms, entry.positions)
        if entry.kind in {EntryKind.GENESIS, EntryKind.RESET}:
            history.root = kept
            history.entries.clear()
        history.entries.append(kept)
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


def _earliest(history: _History, inputs: Sequence[str], firsts: Mapping[str, int]) -> _Entry | None:
    """The start without rows; None if the inputs do not have the records from there on any more."""
    if history.root is not None:
        return history.root if _has_inputs(history.root, inputs, firsts) else None
    replays = history.task.group_id.replays_topic
    if any(firsts.values()) or history.entries[0].positions.get(replays):
        return None
    return _Entry(0, 0, dict.fromkeys(inputs, 0))


def _oldest(
    history: _History,
    inputs: Sequence[str],
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
            if entry.seq >= since_seq and _has_inputs(entry, inputs, firsts):
                return entry
    raise RefusedDrillError(
        "input-expired",
        f"task {history.task} cannot be replayed: its inputs begin at {_listed(firsts)}, and no earlier state can be "
        "restored",
        hint="keep the inputs longer, or set worker.checkpoint_store to the store of the workers",
    )


def _chosen(history: _History, since: Since, inputs: Sequence[str], firsts: Mapping[str, int]) -> _Entry:
    """The last entry up to the chosen time or record. Raises RefusedDrillError."""
    place, time_ms = since.place, since.time_ms
    if place is not None and history.task.number == place.partition:
        fitting = [each for each in history.entries if each.positions.get(place.topic, 0) <= since.offset]
    elif time_ms is not None:
        fitting = [each for each in history.entries if each.wall_ms <= time_ms]
    else:  # another partition than the chosen one: nothing of this task is replayed
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
    if not _has_inputs(start, inputs, firsts):
        raise RefusedDrillError(
            "input-expired",
            f"task {history.task} cannot be replayed from entry {start.seq}: its inputs begin at {_listed(firsts)}",
            hint="choose a later --from",
        )
    return start


def _has_inputs(entry: _Entry, inputs: Sequence[str], firsts: Mapping[str, int]) -> bool:
    return all(entry.positions.get(topic, -1) >= firsts[topic] for topic in inputs)


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
    found = before = None
    for entry in history.entries:
        position = entry.positions.get(replays)
        if before is not None and position is not None and position > before:
            found = entry
        before = position if before is None else before if position is None else position
    return found


def _listed(firsts: Mapping[str, int]) -> str:
    return ", ".join(f"{topic} offset {first}" for topic, first in firsts.items())
