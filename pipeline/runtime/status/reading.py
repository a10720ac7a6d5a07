"""Reads the status of an app: `read_status`. The package's docstring describes the sources."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from pipeline.core.checkpoint_refs import CheckpointRef, kept_checkpoints
from pipeline.core.departures import Departure, Departures, PeerAddress, Revocation
from pipeline.core.entry_body import entry_partitions
from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import Entry, EntryKind, JournalEntry
from pipeline.core.membership import Member, Roster, decode_member
from pipeline.core.names import (
    GroupId,
    TaskId,
    TopicPartition,
    journal_group,
    letter_counts_topic,
    workers_group,
    workers_topic,
)
from pipeline.core.notes import Claim, DeferredGroup, MeasuredSpeed, Owner, decode_note
from pipeline.core.permissions import Role
from pipeline.core.recovery_time import RecoverySpeed, median_speed, predicted_restore_s
from pipeline.core.suggestions import no_app
from pipeline.errors import TruncatedError
from pipeline.ports import Cluster, JournalReader
from pipeline.runtime.commit.journal_reader import complete_entries, first_entry, last_entries, last_entry
from pipeline.runtime.status.app_status import (
    AppStatus,
    TaskPhase,
    TaskStatus,
    WorkerStatus,
    letters_by_group,
    read_tallies,
)
from pipeline.runtime.status.problems import LETTERS_PER_MINUTE, late_groups, letter_problems, problems_of

__all__ = ["KnownCheckpoint", "read_open_letters", "read_status"]

READS_AT_ONCE = 8
# From this lag on, offsets are counted; below it, records.
SMALL_LAG = 20
# The throughput is that of the commits in this time before the last one. Single commits vary with the batches.
RATE_S = 10.0


class _Last(NamedTuple):
    """The last known state of a task: its journal's last entry, or a sink task's owner and mirrored positions."""

    seq: int
    owner: str
    positions: Mapping[TopicPartition, int]
    wall_ms: int
    partitions: Sequence[int] = ()
    new: bool = False
    retired: bool = False
    database: str = ""


def read_status(
    app: str,
    cluster: Cluster,
    reader: JournalReader,
    now_ms: int,
    letters_per_minute: int = LETTERS_PER_MINUTE,
    checkpoints: MutableMapping[TaskId, KnownCheckpoint] | None = None,
) -> AppStatus:
    """Read the status once. `now_ms`: the wall clock. `letters_per_minute`: more are a problem, for each group.

    `checkpoints`: what earlier reads have found, for a caller that reads again and again; it is updated. The entry of a
    checkpoint is far from the end of a journal, so reading it costs more than all the rest.

    Raises InputError if the app does not exist, UnreachableError, FatalTaskError (a damaged journal).
    """
    own = [workers_topic(app), letter_counts_topic(app)]
    topics = {*cluster.topics(), *cluster.describe(own)}
    journals = sorted(name for name in topics if journal_group(app, name) is not None)
    roster, waits, speeds, watched = _roster(app, cluster, reader, topics)
    speed = median_speed(speeds.values())
    sinks = _of_sinks(roster, cluster)
    lost = _without_journal(roster, journals)
    if not (journals or sinks or lost or waits):
        grant = f"pipeline acls MODULE:APP --role {Role.STATUS}"
        raise no_app(
            app, topics, advice=f". Kafka lists no topics to users without Describe on them: {grant}"
        )
    groups = [GroupId(app, journal_group(app, name) or "") for name in journals]
    dead_letter_topics = {group.dead_letter_topic for group in groups}.intersection(topics)
    described = cluster.describe([*journals, *sorted(dead_letter_topics)])
    tasks = [
        TaskId(app, journal_group(app, name) or "", number)
        for name in journals
        if name in described
        for number in range(described[name].partitions)
    ]
    known_checkpoints = {} if checkpoints is None else checkpoints
    read = _each(tasks, lambda task: _last(task, reader, known_checkpoints))
    counts = {name: info.partitions for name, info in described.items()}
    last = {
        task: _entered(entry, TaskInputs(task.number, counts[task.journal.topic]))
        for task, (entry, _, _) in read.items()
    }
    last |= sinks | lost
    # A topic that is not listed was deleted, or may not be described: then these raise.
    topics |= cluster.describe(
        sorted({place.topic for known in last.values() for place in known.positions} - topics)
    ).keys()
    described |= cluster.describe(sorted(_with_letters(read) - described.keys()))
    ends = _input_ends(last, topics, reader)
    found = [
        _with_restore(
            _task(task, known, roster, _behind(known.positions, ends, reader)),
            *read.get(task, (None, None, None)),
            speed,
        )
        for task, known in last.items()
    ]
    workers = _workers(roster, found, watched)
    entries = {task: entry.entry for task, (entry, _, _) in read.items() if entry is not None}
    tallies = read_tallies(app, reader) if letter_counts_topic(app) in topics else {}
    letters = letters_by_group(entries, described, tallies, groups, now_ms)
    problems = late_groups(waits) + problems_of(app, found, workers, now_ms)
    problems += letter_problems(letters, letters_per_minute)
    deferred = {group: [about.worker for about in waiting] for group, waiting in waits.items()}
    return AppStatus(app, found, workers, problems, letters, deferred, speeds)


def _input_ends(
    last: Mapping[TaskId, _Last], topics: Collection[str], reader: JournalReader
) -> Mapping[TopicPartition, int]:
    """The stable ends of the existing inputs of all tasks."""
    inputs = sorted({place for known in last.values() for place in known.positions if place.topic in topics})
    return reader.stable_ends(inputs) if inputs else {}


def read_open_letters(
    app: str, groups: Mapping[GroupId, int], cluster: Cluster, reader: JournalReader, now_ms: int
) -> dict[GroupId, int]:
    """The open records of each of these groups that has a dead-letter topic.

    `groups`: the numbers of their tasks. Raises UnreachableError, ConfigError (a missing permission), FatalTaskError.
    """
    counts = letter_counts_topic(app)
    described = cluster.describe([counts, *sorted(group.dead_letter_topic for group in groups)])
    having = [group for group in sorted(groups) if group.dead_letter_topic in described]
    tasks = [TaskId(*group, number) for group in having for number in range(groups[group])]
    # One after the other: a worker reads them in the background, and each read at the same time needs a client.
    last = ((task, last_entry(task.journal, reader)) for task in tasks)
    entries = {task: found.entry for task, found in last if found is not None}
    tallies = read_tallies(app, reader) if counts in described else {}
    found = letters_by_group(entries, described, tallies, having, now_ms)
    return {each.group: each.letters.open for each in found}


def _with_letters(read: Mapping[TaskId, _Read]) -> set[str]:
    """The dead-letter topics that tasks have written to."""
    return {
        task.group_id.dead_letter_topic
        for task, (last, _, _) in read.items()
        if last is not None and last.entry.letters is not None and last.entry.letters.topic_id
    }


def _roster(
    app: str, cluster: Cluster, reader: JournalReader, topics: Collection[str]
) -> tuple[Roster, Mapping[GroupId, Sequence[DeferredGroup]], Mapping[str, RecoverySpeed], Collection[str]]:
    """The roster, the groups that could not start, how fast live workers have recovered, and the watched processes."""
    members = [decode_member(client_id) for client_id in cluster.member_ids(workers_group(app))]
    owners: dict[TaskId, Owner] = {}
    claims: dict[TaskId, Claim] = {}
    departures, addresses = Departures(), dict[str, PeerAddress]()
    waiting: dict[tuple[GroupId, str], DeferredGroup] = {}
    speeds: dict[str, RecoverySpeed] = {}
    topic = TopicPartition(workers_topic(app), 0)
    if topic.topic in topics:
        bounds = reader.bounds(topic)
        for _, data in reader.read(topic, bounds.start, bounds.stable_end):
            note = decode_note(app, data)
            if note is None:
                continue
            task, about = note
            if isinstance(about, Departure | Revocation):
                departures.add(about)
            elif isinstance(about, PeerAddress):
                addresses[about.worker] = about
            elif isinstance(about, DeferredGroup):
                waiting[task.group_id, about.worker] = about
            elif isinstance(about, Claim):
                claims[task] = about
            elif isinstance(about, MeasuredSpeed):
                speeds[about.worker] = about.speed
            elif isinstance(about, Owner) and about.replaces(owners.get(task)):
                owners[task] = about
    alive = [member for member in members if member is not None]
    roster = Roster(alive, owners, claims, departures.processes)
    living = {member.process for member in roster.workers().values()}
    waits: dict[GroupId, list[DeferredGroup]] = {}
    for (group, _), about in waiting.items():
        if about.problem and about.process in living:
            waits.setdefault(group, []).append(about)
    known = {worker: speed for worker, speed in speeds.items() if worker in roster.workers()}
    watched = {address.process for address in addresses.values() if address.watched}
    return roster, waits, known, watched


class KnownCheckpoint(NamedTuple):
    """The newest checkpoint of a task, by the offset of its entry. `seq`: of a later entry of the same journal."""

    offset: int
    seq: int
    newest: CheckpointRef | None


# The last entry, the newest checkpoint that it refers to, and the records per second of the last commit.
_Read = tuple[JournalEntry | None, CheckpointRef | None, float | None]


def _each(tasks: Sequence[TaskId], read: Callable[[TaskId], _Read]) -> dict[TaskId, _Read]:
    """Run several at a time, because each mostly waits for one or two requests."""
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return dict(zip(tasks, pool.map(read, tasks), strict=True))


def _last(task: TaskId, reader: JournalReader, known: MutableMapping[TaskId, KnownCheckpoint]) -> _Read:
    bounds = reader.bounds(task.journal)
    entries = last_entries(task.journal, reader, bounds, 2)
    if not entries:
        return None, None, None
    last, rate = entries[-1], _rate(task, reader, entries)
    if last.checkpoint < bounds.start:
        return last, None, rate
    before = known.get(task)
    # A journal that was created again has other entries at the same offsets, and begins with seq 1.
    if before is None or before.offset != last.checkpoint or before.seq > last.entry.seq:
        registered = first_entry(task, reader, last.checkpoint, last.next_offset)
        kept = kept_checkpoints(registered) if registered is not None else ()
        before = known[task] = KnownCheckpoint(last.checkpoint, last.entry.seq, kept[0] if kept else None)
    return last, before.newest, rate


def _rate(task: TaskId, reader: JournalReader, entries: Sequence[JournalEntry]) -> float | None:
    """The records per second of the commits in the last RATE_S; None if the last entry is of another kind.

    If there is only one, it is measured from the entry before it. Offsets are counted, so a marker counts as a record.
    """
    if len(entries) < 2 or entries[-1].entry.kind not in {EntryKind.COMMIT, EntryKind.CHECKPOINT}:
        return None
    last, before = entries[-1].entry, entries[-2].entry
    since_ms = last.wall_ms - int(RATE_S * 1000)
    if before.wall_ms > since_ms:
        before = _first_since(task, reader, since_ms, entries)
    offsets = sum(
        position - before.positions.get(name, position) for name, position in last.positions.items()
    )
    return round(max(0, offsets) * 1000 / max(1, last.wall_ms - before.wall_ms), 1)


def _first_since(
    task: TaskId, reader: JournalReader, since_ms: int, entries: Sequence[JournalEntry]
) -> Entry:
    """The first entry since then that has all positions; genesis does not. At the latest, the last but one."""
    names = entries[-1].entry.positions.keys()
    try:
        start = reader.offset_at(task.journal, since_ms)
        for found in complete_entries(task, reader, start, entries[-2].offset):
            if names <= found.entry.positions.keys():
                return found.entry
    except TruncatedError:  # a checkpoint has just made these entries unnecessary
        pass
    return entries[-2].entry


def _entered(last: JournalEntry | None, inputs: TaskInputs) -> _Last:
    if last is None:
        return _Last(0, "", {}, 0, new=True)
    entry = last.entry
    partitions = entry_partitions(entry, inputs)
    if entry.kind is EntryKind.GENESIS:
        return _Last(entry.seq, "", {}, entry.wall_ms, partitions, new=True)
    retired = entry.kind is EntryKind.RETIRE
    positions = inputs.places(entry.positions)
    return _Last(entry.seq, entry.owner, positions, entry.wall_ms, partitions, retired=retired)


def _sink_tasks(roster: Roster) -> set[TaskId]:
    return {task for task, owner in roster.owners.items() if owner.database}


def _of_sinks(roster: Roster, cluster: Cluster) -> dict[TaskId, _Last]:
    """The sink tasks that have had an owner. A group may have had other tasks before: those are left out."""
    noted = {task: roster.owners[task] for task in sorted(_sink_tasks(roster))}
    owned = {
        task: owner
        for task, owner in noted.items()
        if not any(
            other.group_id == task.group_id and newer.seq > owner.seq and newer.reads(other, task.number)
            for other, newer in noted.items()
        )
    }
    mirrors = {group: cluster.committed(group.consumer_group) for group in {task.group_id for task in owned}}
    return {
        task: _Last(
            owner.seq,
            owner.worker,
            read := {at: p for at, p in mirrors[task.group_id].items() if owner.reads(task, at.partition)},
            0,
            sorted({task.number, *(at.partition for at in read)}),
            database=owner.database,
        )
        for task, owner in owned.items()
    }


def _without_journal(roster: Roster, journals: Sequence[str]) -> dict[TaskId, _Last]:
    """The failed tasks whose journal topic does not exist: only the notes have the reason."""
    failed = {task: owner.worker for task, owner in roster.owners.items() if owner.problem and owner.released}
    failed |= {task: claim.worker for task, claim in roster.claims.items() if claim.problem}
    return {
        task: _Last(0, worker, {}, 0)
        for task, worker in sorted(failed.items())
        if task not in _sink_tasks(roster) and task.group_id.journal_topic not in journals
    }


def _with_restore(
    status: TaskStatus,
    last: JournalEntry | None,
    newest: CheckpointRef | None,
    rate: float | None,
    speed: RecoverySpeed,
) -> TaskStatus:
    if last is None:
        return status
    copied = newest.size if newest is not None else 0
    replayed = last.journal_bytes - (newest.journal_bytes if newest is not None else 0)
    return replace(
        status,
        checkpoint_ms=newest.wall_ms if newest is not None else 0,
        checkpoint_bytes=copied,
        journal_bytes=replayed,
        restore_s=round(predicted_restore_s(copied, replayed, speed), 1),
        records_per_s=rate,
        clock_ms=last.entry.stream_time_ms if last.entry.stream_time_ms >= 0 else None,
    )


def _behind(
    positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], reader: JournalReader
) -> int:
    """The lag. A lag of one or two offsets is usually the marker of the last transaction."""
    lag = 0
    for partition, position in positions.items():
        offsets = max(0, ends.get(partition, position) - position)
        if 0 < offsets <= SMALL_LAG:
            offsets = sum(1 for _ in reader.read(partition, position, position + offsets))
        lag += offsets
    return lag


def _task(task: TaskId, last: _Last, roster: Roster, lag: int) -> TaskStatus:
    return replace(_phase(task, last, roster, lag), partitions=last.partitions)


def _phase(task: TaskId, last: _Last, roster: Roster, lag: int) -> TaskStatus:
    if last.new:
        return TaskStatus(task, TaskPhase.NEW, "", last.seq, 0, {}, last.wall_ms)
    if last.retired:
        return TaskStatus(task, TaskPhase.RETIRED, "", last.seq, lag, _shown(last), last.wall_ms)
    owner, claim = roster.owners.get(task), roster.claims.get(task)
    taker = claim.worker if claim is not None and _alive(roster, claim) else ""
    phase, problem = TaskPhase.UNOWNED, ""
    if owner is not None and owner.problem and owner.released:
        phase, problem = TaskPhase.FAILED, owner.problem
    elif claim is not None and claim.problem and not roster.is_running(task):
        phase, problem, owner, taker = TaskPhase.FAILED, claim.problem, None, ""
    elif roster.is_running(task):
        phase, problem = (
            TaskPhase.MOVING if taker else TaskPhase.LIVE,
            owner.problem if owner is not None else "",
        )
    elif taker:
        phase = TaskPhase.RESTORING
    elif owner is not None and owner.problem:
        problem = f"its last worker noted: {owner.problem}"
    worker = owner.worker if owner is not None else claim.worker if problem and claim else last.owner
    found = TaskStatus(task, phase, worker, last.seq, lag, _shown(last), last.wall_ms, taker, problem)
    retrying = bool(problem) and owner is not None and owner.retrying and roster.is_running(task)
    return replace(found, database=last.database, retrying=retrying)


def _shown(last: _Last) -> dict[str, int]:
    """Positions by topic, or by partition where the task has several of a topic."""
    several = len({place.partition for place in last.positions}) > 1
    return {str(place) if several else place.topic: at for place, at in last.positions.items()}


def _alive(roster: Roster, claim: Claim) -> bool:
    return any(member.process == claim.process for member in roster.members)


def _workers(roster: Roster, tasks: Sequence[TaskStatus], watched: Collection[str]) -> list[WorkerStatus]:
    groups = sorted({status.task.group for status in tasks})
    running = [status.worker for status in tasks if status.phase in {TaskPhase.LIVE, TaskPhase.MOVING}]

    def status(member: Member) -> WorkerStatus:
        rings = {group: ring for group in groups if (ring := member.ring_of(group)) is not None}
        waiting = any(roster.others_before(member, group) for group in rings)
        count = running.count(member.worker)
        watching = member.process in watched
        return WorkerStatus(member.worker, member.process, member.weight, count, waiting, rings, watching)

    return [status(member) for _, member in sorted(roster.workers().items())]
