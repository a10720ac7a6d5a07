"""Reset: discard a task's state, and handle its input again from chosen positions.

A reset appends a RESET entry (`runtime/commit/admin_entry.py`): the state is empty, the positions are the chosen ones,
and the history continues. A crash before its commit changes nothing. After it, every restore, with any local state,
reaches the RESET entry and continues with an empty state. A reset of one partition of a task with several deletes only
the rows of this partition, and moves only its positions. A worker that runs the task restores it by itself. The entry
has the current topics and schemas, so a reset of a whole task also allows a change that
`core.recovery.check_identity` refuses. A sink group has no journal: its positions are in its database
(`reset_positions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.written_topics import topics_written
from pipeline.config import WorkerSettings
from pipeline.core.entry_body import partitions_to_reset
from pipeline.core.journal_format import EntryKind, Identity, JournalEntry
from pipeline.core.names import TaskId, TopicPartition, is_replays
from pipeline.core.recovery import check_identity
from pipeline.core.sink_positions import PositionRow, next_epoch, rows_by_input
from pipeline.core.suggestions import counted
from pipeline.errors import FatalTaskError, InputError
from pipeline.ports import JournalReader
from pipeline.runtime.commit.admin_entry import append_entry, last_of
from pipeline.runtime.commit.journal_reader import last_entries
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan, plan_groups
from pipeline.runtime.restore.retirement import refuse_retired
from pipeline.runtime.sinks.backend import inputs_now, rows_of, sessions_of

__all__ = [
    "InputReset",
    "StartAt",
    "TaskReset",
    "plan_reset",
    "read_positions",
    "reset_positions",
    "reset_task",
    "start_at",
    "timestamp_of",
]

# The last entries that are searched for a task's topics. More would be slow for a large journal.
IDENTITY_SEARCH = (1, 100, 10_000)

# The start offset of an input partition, from a reader that knows its bounds.
StartAt = Callable[[JournalReader, TopicPartition], int]


def start_at(choices: Sequence[str]) -> StartAt:
    """Parse the start of inputs as people write it: `[TOPIC=]earliest|latest|OFFSET|TIME`.

    TIME is ISO 8601 with an offset from UTC: the first record with that timestamp or a later one. A choice with a topic
    is for that topic, a choice without is for all other topics. Raises InputError.
    """
    chosen: dict[str, StartAt] = {}
    for choice in choices:
        topic, equals, where = choice.rpartition("=")
        if topic in chosen:
            raise InputError(
                f"{choice!r}: the topic has two start positions"
                if equals
                else "there are two start positions for all inputs"
            )
        chosen[topic] = _where(where)

    def start(reader: JournalReader, partition: TopicPartition) -> int:
        found = chosen.get(partition.topic, chosen.get(""))
        if found is None:
            raise InputError(
                f"there is no start position for topic {partition.topic}", hint="add TOPIC=earliest"
            )
        return found(reader, partition)

    return start


def _where(text: str) -> StartAt:
    if text == "earliest":
        return lambda reader, partition: reader.bounds(partition).start
    if text == "latest":
        return lambda reader, partition: reader.highest_ends([partition])[partition]
    if text.isdecimal():
        offset = int(text)
        return lambda _reader, _partition: offset
    timestamp_ms = timestamp_of(text, "is not a start position", "earliest, latest, an offset, or ")
    return lambda reader, partition: reader.offset_at(partition, timestamp_ms)


def timestamp_of(text: str, wrong: str = "is not a time", instead: str = "") -> int:
    """Milliseconds since the epoch for a time in ISO 8601 with an offset from UTC. Raises InputError."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} {wrong}", hint=f"{instead}2026-01-31T00:00:00Z") from None
    if when.tzinfo is None:
        raise InputError(f"{text!r} has no time zone", hint=f"{text}Z for UTC, or {text}+02:00")
    return round(when.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class InputReset:
    """One input partition of a task. All values are offsets.

    `position`: None if the task never read the partition, also because the topic was created again. `first`: the first
    offset that the partition contains.
    """

    topic: str
    partition: int
    position: int | None
    start: int
    first: int

    @property
    def again(self) -> int:
        """The number of offsets below the position that are handled again, including markers."""
        return max(0, (self.position or 0) - self.start)

    @property
    def skipped(self) -> int:
        """The number of offsets that are never handled."""
        return max(0, self.start - (self.first if self.position is None else self.position))


@dataclass(frozen=True, slots=True)
class TaskReset:
    """The effect of a reset on one task. `outputs`: the topics that its handlers may have written to.

    `partition`: the only one that is reset; None: all of the task. `readers`: the other groups of the app that read
    outputs, by topic.
    """

    task: TaskId
    plan: GroupPlan
    seq: int
    inputs: tuple[InputReset, ...]
    outputs: tuple[str, ...]
    partition: int | None = None
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def partitions(self) -> list[int]:
        """The partitions that are reset."""
        return [self.partition] if self.partition is not None else self.plan.numbers_of(self.task.number)


def plan_reset(
    app: DeclaredApp,
    groups: Sequence[DeclaredGroup],
    number: int | None,
    start: StartAt,
    environment: Environment,
    partition: int | None = None,
) -> Iterator[TaskReset]:
    """Plan a reset of each task of `groups`, or of task `number` or of `partition` of each. Changes nothing.

    Raises ConfigError (also for a retired app), InputError (a start outside the input's offsets), UnreachableError,
    FatalTaskError (the group has no journal).
    """
    plans, _ = plan_groups(app, groups, environment)
    reader = environment.journals()
    try:
        for plan in plans:
            numbers = _sink_seqs(plan, environment) if plan.group.sinks else None
            if numbers is None:
                _require_journal(plan, environment)
            chosen = _chosen_task(plan, number, partition)
            only = partition if plan.partitions > plan.task_count else None
            outputs = tuple(topics_written(app, plan.group))
            readers = _readers(app, plan.group, outputs)
            for task in plan.tasks:
                if chosen is None or task.number == chosen:
                    seq, positions = numbers[task] if numbers is not None else _entered(task, plan, reader)
                    inputs = _input_resets(task, plan, positions, start, reader, only)
                    yield TaskReset(task, plan, seq, inputs, outputs, only, readers)
    finally:
        reader.close()


def _readers(app: DeclaredApp, group: DeclaredGroup, outputs: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    others = [other for other in app.groups if other.name != group.name]
    read = {
        name: tuple(other.name for other in others if name in {topic.name for topic in other.inputs})
        for name in outputs
    }
    return {name: groups for name, groups in read.items() if groups}


def _chosen_task(plan: GroupPlan, number: int | None, partition: int | None) -> int | None:
    """The number of the only task to reset; None for all. Raises InputError."""
    if partition is not None:
        if not 0 <= partition < plan.partitions:
            raise InputError(
                f"the inputs of group {plan.id.app}/{plan.id.group} have no partition {partition}",
                hint=f"their partitions are 0 to {plan.partitions - 1}",
            )
        return plan.task_of(partition)
    if number is not None and not 0 <= number < plan.task_count:
        each = (
            f". For partition {number} of its inputs: --partition {number}"
            if number < plan.partitions
            else ""
        )
        raise InputError(
            f"group {plan.id.app}/{plan.id.group} has no task {number}",
            hint=f"its tasks are 0 to {plan.task_count - 1}{each}",
        )
    return number


def reset_task(reset: TaskReset, owner: str, environment: Environment, settings: WorkerSettings) -> int:
    """Reset the task. Returns the seq of the RESET entry, or a sink task's new epoch.

    Raises FencedError if workers acquire the task again each time, UnreachableError, FatalTaskError.
    """
    names = reset.plan.names_of(reset.task.number)
    positions = {names.name(TopicPartition(each.topic, each.partition)): each.start for each in reset.inputs}
    if reset.plan.group.sinks:
        return reset_positions(reset.task, reset.plan, positions, environment)
    if reset.partition is not None:
        return _reset_partition(reset, reset.partition, positions, owner, environment, settings)
    commit = Commit(EntryKind.RESET, positions, identity=reset.plan.identity)
    return append_entry(reset.task, owner, lambda _last: commit, environment, settings)


def _reset_partition(
    reset: TaskReset,
    partition: int,
    positions: Mapping[str, int],
    owner: str,
    environment: Environment,
    settings: WorkerSettings,
) -> int:
    """Reset one partition. The identity stays that of the history, because the rows of the others are kept."""
    task = reset.task
    with closing(environment.journals()) as reader:
        before = _last_identity(task, reader)
    whole = f"reset the whole task: --task {task.number}"
    if before is None:
        raise InputError(
            f"task {task}: no recent entry names its inputs",
            hint=f"restart the worker that owns the task: its first entry names them. Then try again; or {whole}",
        )
    check_identity(f"task {task}", before, reset.plan.identity, _any_upgrade(before))

    def entry(last: JournalEntry) -> Commit:
        known = last.entry.positions
        moved = {name: at for name, at in positions.items() if name in known}
        if not moved:
            raise InputError(f"task {task} has processed no record of partition {partition}", hint=whole)
        return Commit(
            EntryKind.RESET, {**known, **moved}, identity=before, extra=partitions_to_reset([partition])
        )

    return append_entry(task, owner, entry, environment, settings)


def _any_upgrade(before: Identity) -> dict[str, str]:
    """Any change of a table's type is allowed: the owner of the task checks it when it acquires the task."""
    return dict.fromkeys(before.tables, "")


def _require_journal(plan: GroupPlan, environment: Environment) -> None:
    refuse_retired(plan.id, environment)
    topic = plan.id.journal_topic
    found = environment.cluster.describe([topic]).get(topic)
    if found is None:
        raise FatalTaskError(
            f"group {plan.id.app}/{plan.id.group} has no journal ({topic}): there is nothing to reset",
            hint="start a worker; if the group existed before: runbooks/journal-lost.md",
        )
    if found.partitions != plan.task_count:
        raise FatalTaskError(
            f"the journal {topic} has {counted(found.partitions, 'partition')}, the group "
            f"{counted(plan.task_count, 'task')}",
            hint="follow runbooks/partitions-changed.md",
        )


def _entered(task: TaskId, plan: GroupPlan, reader: JournalReader) -> tuple[int, Mapping[str, int]]:
    """The last entry's number, and its positions in the topics that exist now, not in earlier topics of that name."""
    last = last_of(task, reader).entry
    before = _last_identity(task, reader)
    found = {}
    for name, position in last.positions.items():
        place = plan.names_of(task.number).place(name)
        was = before.inputs.get(place.topic) if before else None
        now = plan.identity.inputs.get(place.topic)
        if was is not None and now is not None:
            same = was.topic_id == now.topic_id
        else:
            same = now is None or position <= _end(reader, place)
        if same:
            found[name] = position
    return last.seq, found


def _last_identity(task: TaskId, reader: JournalReader) -> Identity | None:
    """The topics that the positions refer to. None if no recent entry has them: only acquires and resets do."""
    bounds = reader.bounds(task.journal)
    for count in IDENTITY_SEARCH:
        entries = last_entries(task.journal, reader, bounds, count)
        for entry in reversed(entries):
            if entry.entry.identity is not None:
                return entry.entry.identity
        if len(entries) < count:
            break
    return None


def _end(reader: JournalReader, partition: TopicPartition) -> int:
    return reader.highest_ends([partition])[partition]


def _sink_seqs(plan: GroupPlan, environment: Environment) -> dict[TaskId, tuple[int, Mapping[str, int]]]:
    """The epoch and positions of each task; 0 and no positions if its rows are missing."""
    return {
        task: (
            max((row.epoch for row in rows.values()), default=0),
            {
                name: row.position
                for name, row in rows.items()
                if row.topic not in plan.identity.inputs
                or row.topic_id == plan.identity.inputs[row.topic].topic_id
            },
        )
        for task, rows in read_positions(plan, environment).items()
    }


def _input_resets(
    task: TaskId,
    plan: GroupPlan,
    positions: Mapping[str, int],
    start: StartAt,
    reader: JournalReader,
    only: int | None,
) -> tuple[InputReset, ...]:
    """The inputs of a task, or those of partition `only`."""
    inputs = []
    for name, partition in plan.inputs_of(task.number).items():
        if only is not None and partition.partition != only:
            continue
        first, end = reader.bounds(partition).start, _end(reader, partition)
        position = positions.get(name)
        if is_replays(partition.topic):
            chosen = _behind_replays(reader, partition, position or first, end)
        else:
            chosen = start(reader, partition)
        if not first <= chosen <= end:
            raise InputError(
                f"{partition} has the offsets {first} to {end}, and not {chosen}",
                hint="choose one of these offsets, a time, earliest or latest",
            )
        inputs.append(InputReset(partition.topic, partition.partition, position, chosen, first))
    return tuple(inputs)


def _behind_replays(reader: JournalReader, partition: TopicPartition, position: int, end: int) -> int:
    """The position after the waiting replays, which belong to the discarded history. Unchanged if there are none."""
    waits = next(reader.read(partition, position, end), None) is not None  # markers have offsets, too
    return end if waits else position


def read_positions(plan: GroupPlan, environment: Environment) -> dict[TaskId, dict[str, PositionRow]]:
    """The rows of each task, by input. Raises SinkUnreachableError, ConfigError."""
    sessions = sessions_of(plan, environment)
    try:
        with sessions.one() as session:
            session.prepare()
            rows = rows_of(plan, session)
    finally:
        sessions.close()
    return {task: rows_by_input(rows, plan.names_of(task.number)) for task in plan.tasks}


def reset_positions(
    task: TaskId, plan: GroupPlan, positions: Mapping[str, int], environment: Environment
) -> int:
    """Move these positions of a sink task, by input, and fence its owner.

    Returns the new epoch. Raises SinkUnreachableError, RetriableError, UnknownOutcomeError: retry.
    """
    sessions, inputs, names = sessions_of(plan, environment), inputs_now(plan), plan.names_of(task.number)
    try:
        with sessions.one() as session:
            session.begin()
            before = session.lock(task, plan.task_count)
            epoch = next_epoch(before, 0)
            released = [row._replace(epoch=epoch, owner="", process="") for row in before]
            rows = rows_by_input(released, names)
            for name, position in positions.items():
                topic, partition = names.place(name)
                rows[name] = PositionRow(topic, partition, position, epoch, "", "", *inputs[topic])
            session.put(task.group_id, list(rows.values()), keep=False)
            session.commit()
    finally:
        sessions.close()
    return epoch
