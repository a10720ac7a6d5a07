"""How an app is doing, read from Kafka alone, so that it can be asked with every worker dead.

The journals say what was committed and by whom, and what checkpoints there are; the members' group who is alive; and
the workers' topic what they told each other. A large `lag` counts offsets, markers among them, as every lag tool
does; a small one counts records, so that it is 0 when all is done.

A task of sinks has its positions in a database, which is not asked: its owner's note has its epoch, and the mirror, the
consumer group that workers write every few seconds, says how far it is.

How long a restore on an empty disk would take is the time to copy the newest checkpoint and to replay the journal
behind it, at cautious speeds: `python -m benchmarks restore` shows those of a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from pipeline.core.journal import JournalEntry, Kind
from pipeline.core.kept import CheckpointRef, kept_checkpoints
from pipeline.core.membership import (
    Claim,
    Departure,
    Member,
    Owner,
    Roster,
    Waiting,
    decode_member,
    decode_note,
)
from pipeline.core.names import GroupId, TaskId, TopicPartition, journal_group, workers_group, workers_topic
from pipeline.errors import InputError
from pipeline.ports import Cluster, JournalReader
from pipeline.runtime.journal import first_entry, last_entries

__all__ = ["AppStatus", "Phase", "Problem", "TaskStatus", "WorkerStatus", "read_status"]

READS_AT_ONCE = 8
# From here on a lag is counted in offsets; below, records are counted.
SMALL_LAG = 20
# A task that is live and behind, and silent for this long, is a question; a dead worker is missed after 10 s.
SILENT_S = 5
# Ten times the default interval between checkpoints.
CHECKPOINT_OLD_S = 600
RESTORE_S = 0.5  # fence, looks at the journal, acquire
COPY_BYTES_PER_S = 100_000_000
REPLAY_BYTES_PER_S = 40_000_000


class Phase(StrEnum):
    """Where a task is. UNOWNED: nobody runs it now; with workers alive, one of them is about to."""

    LIVE = "live"
    RESTORING = "restoring"
    MOVING = "moving"
    UNOWNED = "unowned"
    FAILED = "failed"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """`worker`: who runs it, or ran it last. `positions`: next input offsets. `entry_ms`: time of the last entry.

    `checkpoint_ms`: of the newest checkpoint, 0 without any. `restore_s`: on an empty disk, predicted. `database`: of a
    task of sinks, whose `seq` is its epoch; empty for one with a journal. `problem`: why it failed, or waits.
    """

    task: TaskId
    phase: Phase
    worker: str
    seq: int
    lag: int
    positions: Mapping[str, int]
    entry_ms: int
    next_worker: str = ""
    problem: str = ""
    checkpoint_ms: int = 0
    checkpoint_bytes: int = 0
    journal_bytes: int = 0  # behind the checkpoint
    restore_s: float = 0.0
    database: str = ""


class _Last(NamedTuple):
    """The last that is known of a task: its journal's last entry, or a sink task's owner and mirror."""

    seq: int
    owner: str
    positions: Mapping[str, int]
    wall_ms: int
    new: bool = False
    database: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A living worker. `waiting`: workers of another version must leave before it gets tasks."""

    worker: str
    process: str
    weight: int
    tasks: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what helps."""

    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class AppStatus:
    app: str
    tasks: Sequence[TaskStatus]
    workers: Sequence[WorkerStatus]
    problems: Sequence[Problem]


def read_status(app: str, cluster: Cluster, reader: JournalReader, now_ms: int) -> AppStatus:
    """One look, at `now_ms` by the wall clock.

    Raises InputError when there is no such app, UnreachableError, FatalTaskError (a damaged journal).
    """
    topics = cluster.topics()
    journals = sorted(name for name in topics if journal_group(app, name) is not None)
    roster, waits = _roster(app, cluster, reader, topics)
    sinks = _of_sinks(roster, cluster)
    if not journals and not sinks and not waits:
        raise InputError(
            f"this Kafka has no app {app}",
            hint="give the name in App(...), or MODULE:APP; an app is there once its first worker has started",
        )
    described = cluster.describe(journals)
    tasks = [
        TaskId(app, journal_group(app, name) or "", number)
        for name in journals
        if name in described
        for number in range(described[name].partitions)
    ]
    read = _each(tasks, lambda task: _last(task, reader))
    last = {task: _entered(entry) for task, (entry, _) in read.items()} | sinks
    inputs = sorted(
        {
            TopicPartition(topic, task.partition)
            for task, known in last.items()
            for topic in known.positions
            if topic in topics
        }
    )
    ends = reader.stable_ends(inputs) if inputs else {}
    found = [
        _with_restore(
            _task(task, known, roster, _behind(task, known.positions, ends, reader)),
            *read.get(task, (None, None)),
        )
        for task, known in last.items()
    ]
    workers = _workers(roster, found)
    problems = _late(waits) + _problems(app, found, workers, now_ms)
    return AppStatus(app, found, workers, problems)


def _roster(
    app: str, cluster: Cluster, reader: JournalReader, topics: Sequence[str]
) -> tuple[Roster, Mapping[GroupId, Sequence[Waiting]]]:
    """The members with what they told each other; and which groups could not begin in which of them."""
    members = [decode_member(client_id) for client_id in cluster.member_ids(workers_group(app))]
    owners: dict[TaskId, Owner] = {}
    claims: dict[TaskId, Claim] = {}
    departed: dict[str, str] = {}
    waiting: dict[tuple[GroupId, str], Waiting] = {}
    topic = TopicPartition(workers_topic(app), 0)
    if topic.topic in topics:
        bounds = reader.bounds(topic)
        for _, data in reader.read(topic, bounds.start, bounds.stable_end):
            note = decode_note(app, data)
            if note is None:
                continue
            task, about = note
            if isinstance(about, Departure):
                departed[about.worker] = about.process
            elif isinstance(about, Waiting):
                waiting[task.group_id, about.worker] = about
            elif isinstance(about, Claim):
                claims[task] = about
            elif task not in owners or about.order >= owners[task].order:
                owners[task] = about
    alive = [member for member in members if member is not None]
    roster = Roster(alive, owners, claims, frozenset(departed.values()))
    living = {member.process for member in roster.workers().values()}
    waits: dict[GroupId, list[Waiting]] = {}
    for (group, _), about in waiting.items():
        if about.problem and about.process in living:
            waits.setdefault(group, []).append(about)
    return roster, waits


_Read = tuple[JournalEntry | None, CheckpointRef | None]


def _each(tasks: Sequence[TaskId], read: Callable[[TaskId], _Read]) -> dict[TaskId, _Read]:
    """Several at a time: each is a request or two that mostly waits."""
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return dict(zip(tasks, pool.map(read, tasks), strict=True))


def _last(task: TaskId, reader: JournalReader) -> _Read:
    """The last entry, and the newest checkpoint that it knows of."""
    bounds = reader.bounds(task.journal)
    entries = last_entries(task.journal, reader, bounds, 1)
    if not entries:
        return None, None
    last = entries[-1]
    if last.checkpoint < bounds.start:
        return last, None
    registered = first_entry(task, reader, last.checkpoint, last.next_offset)
    kept = kept_checkpoints(registered) if registered is not None else ()
    return last, kept[0] if kept else None


def _entered(last: JournalEntry | None) -> _Last:
    if last is None:
        return _Last(0, "", {}, 0, new=True)
    entry = last.entry
    if entry.kind is Kind.GENESIS:
        return _Last(entry.seq, "", {}, entry.wall_ms, new=True)
    return _Last(entry.seq, entry.owner, entry.positions, entry.wall_ms)


def _of_sinks(roster: Roster, cluster: Cluster) -> dict[TaskId, _Last]:
    """Tasks of sinks that somebody has had."""
    owned = {task: owner for task, owner in sorted(roster.owners.items()) if owner.database}
    mirrors = {group: cluster.committed(group.consumer_group) for group in {task.group_id for task in owned}}
    return {
        task: _Last(
            owner.seq,
            owner.worker,
            {at.topic: p for at, p in mirrors[task.group_id].items() if at.partition == task.partition},
            0,
            database=owner.database,
        )
        for task, owner in owned.items()
    }


def _with_restore(status: TaskStatus, last: JournalEntry | None, newest: CheckpointRef | None) -> TaskStatus:
    if last is None:
        return status
    copied = newest.size if newest is not None else 0
    replayed = last.journal_bytes - (newest.journal_bytes if newest is not None else 0)
    return replace(
        status,
        checkpoint_ms=newest.wall_ms if newest is not None else 0,
        checkpoint_bytes=copied,
        journal_bytes=replayed,
        restore_s=round(RESTORE_S + copied / COPY_BYTES_PER_S + replayed / REPLAY_BYTES_PER_S, 1),
    )


def _behind(
    task: TaskId, positions: Mapping[str, int], ends: Mapping[TopicPartition, int], reader: JournalReader
) -> int:
    """The lag. What looks like a record or two is mostly the marker of the transaction that wrote the last one."""
    lag = 0
    for topic, position in positions.items():
        partition = TopicPartition(topic, task.partition)
        offsets = max(0, ends.get(partition, position) - position)
        if 0 < offsets <= SMALL_LAG:
            offsets = sum(1 for _ in reader.read(partition, position, position + offsets))
        lag += offsets
    return lag


def _task(task: TaskId, last: _Last, roster: Roster, lag: int) -> TaskStatus:
    if last.new:
        return TaskStatus(task, Phase.NEW, "", last.seq, 0, {}, last.wall_ms)
    owner, claim = roster.owners.get(task), roster.claims.get(task)
    taker = claim.worker if claim is not None and _alive(roster, claim) else ""
    phase, problem = Phase.UNOWNED, ""
    if owner is not None and owner.problem and owner.released:
        phase, problem = Phase.FAILED, owner.problem
    elif claim is not None and claim.problem and not roster.is_running(task):
        phase, problem, owner, taker = Phase.FAILED, claim.problem, None, ""
    elif roster.is_running(task):
        phase, problem = Phase.MOVING if taker else Phase.LIVE, owner.problem if owner is not None else ""
    elif taker:
        phase = Phase.RESTORING
    worker = owner.worker if owner is not None else claim.worker if problem and claim else last.owner
    found = TaskStatus(task, phase, worker, last.seq, lag, last.positions, last.wall_ms, taker, problem)
    return replace(found, database=last.database)


def _alive(roster: Roster, claim: Claim) -> bool:
    return any(member.process == claim.process for member in roster.members)


def _workers(roster: Roster, tasks: Sequence[TaskStatus]) -> list[WorkerStatus]:
    ring = roster.ring_members()
    running = [status.worker for status in tasks if status.phase in {Phase.LIVE, Phase.MOVING}]

    def status(member: Member) -> WorkerStatus:
        waiting = member.worker not in ring
        return WorkerStatus(
            member.worker, member.process, member.weight, running.count(member.worker), waiting
        )

    return [status(member) for _, member in sorted(roster.workers().items())]


def _problems(
    app: str, tasks: Sequence[TaskStatus], workers: Sequence[WorkerStatus], now_ms: int
) -> list[Problem]:
    found = [_failure(status) for status in tasks if status.phase is Phase.FAILED]
    found += _waits([status for status in tasks if status.phase is not Phase.FAILED and status.problem])
    if not workers:
        found.append(Problem(f"no worker of {app} is alive", "start one: pipeline worker MODULE:APP"))
    elif unowned := [status for status in tasks if status.phase in {Phase.UNOWNED, Phase.NEW}]:
        found.append(
            Problem(
                f"{len(unowned)} of {len(tasks)} tasks are run by nobody: {_named(unowned)}",
                "a worker takes them within seconds; if it stays so, look into the workers' logs",
            )
        )
    silent = [status for status in tasks if _is_silent(status, now_ms)]
    if workers and silent:
        found.append(
            Problem(
                f"{_named(silent)}: behind, and nothing committed for {SILENT_S} s",
                f"worker {silent[0].worker} may be dead, which is noticed after 10 s, a handler takes long, or a "
                "record is tried again: its log",
            )
        )
    if old := [status for status in tasks if _checkpoint_is_old(status)]:
        found.append(
            Problem(
                f"{_named(old)}: no checkpoint for {CHECKPOINT_OLD_S // 60} min, though entries were written",
                "look for checkpoint_ in the workers' logs: runbooks/checkpoint-store-unavailable.md",
            )
        )
    if waiting := [status.worker for status in workers if status.waiting]:
        found.append(
            Problem(
                f"workers of another version wait for the others to leave: {', '.join(waiting)}",
                "stop the workers of the old version",
            )
        )
    return found


def _failure(status: TaskStatus) -> Problem:
    """The first line says what and where; the frames are in the worker's log."""
    text, _, hint = status.problem.partition("\n  -> ")
    where = f"task {status.task} failed on worker {status.worker}"
    reason = text.splitlines()[0].removeprefix(f"task {status.task}: ") if text else "no reason given"
    return Problem(f"{where}: {reason}", hint or "mend the cause and restart that worker")


def _late(waits: Mapping[GroupId, Sequence[Waiting]]) -> list[Problem]:
    found = []
    for group, waiting in sorted(waits.items()):
        text, _, hint = waiting[0].problem.partition("\n  -> ")
        workers = ", ".join(about.worker for about in waiting)
        where = f"group {group.app}/{group.group} has not begun on {workers}"
        found.append(Problem(f"{where}: {text}", hint or "look into the worker's log"))
    return found


def _waits(tasks: Sequence[TaskStatus]) -> list[Problem]:
    """One for each reason: a database that is away is all its tasks' problem."""
    by_reason: dict[str, list[TaskStatus]] = {}
    for status in tasks:
        by_reason.setdefault(status.problem, []).append(status)
    found = []
    for reason, waiting in by_reason.items():
        text, _, hint = reason.partition("\n  -> ")
        found.append(Problem(f"{_named(waiting)}: {text}", hint or "look into the worker's log"))
    return found


def _is_silent(status: TaskStatus, now_ms: int) -> bool:
    running = status.phase in {Phase.LIVE, Phase.MOVING} and not status.database
    return running and status.lag > 0 and now_ms - status.entry_ms > SILENT_S * 1000


def _checkpoint_is_old(status: TaskStatus) -> bool:
    age_ms = status.entry_ms - status.checkpoint_ms
    return bool(status.checkpoint_ms) and age_ms > CHECKPOINT_OLD_S * 1000


def _named(tasks: Sequence[TaskStatus]) -> str:
    return ", ".join(str(status.task) for status in tasks[:5]) + (" ..." if len(tasks) > 5 else "")
