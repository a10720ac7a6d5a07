"""Which worker runs which task: members, their notes to each other, and the next action of each worker. Pure.

A fence in Kafka decides ownership; this module does not. If two workers disagree for a moment, the only cost is a
restore. They reach agreement by:

    members   the dynamic members of the Kafka group `<app>.workers`; the client id identifies a member
    owners    the last worker that acquired a task, with the seq of its acquire (or release) entry; the highest counts
    claims    a worker that prepares for a task that another worker runs, or that no worker runs

Owners and claims are notes in the compacted topic `pipeline.workers.<app>`. A lost or late note delays a handoff.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pipeline.core.crashes import Suspect
from pipeline.core.departures import Departure, PeerAddress, Revocation, process_age
from pipeline.core.names import TaskId
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.core.ring import RING_VERSION, VIRTUAL_NODES, assign
from pipeline.errors import ConfigError

__all__ = [
    "About",
    "AssignmentAction",
    "Claim",
    "DeferredGroup",
    "Departure",
    "MeasuredSpeed",
    "Member",
    "Note",
    "Owner",
    "PeerAddress",
    "Revocation",
    "Roster",
    "Suspected",
    "TaskRole",
    "check_worker_id",
    "decide",
    "decode_member",
    "decode_note",
    "encode_member",
    "encode_note",
    "process_age",
    "process_name",
    "ring_parameters",
]

_PREFIX = "pipeline/1/"
_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def process_name(started_ms: int, token: bytes) -> str:
    """A unique name for a process of a worker."""
    return f"{started_ms}-{token.hex()}"


class Member(NamedTuple):
    """A process that is a member. `parameters`: the inputs of its ring (`ring_parameters`)."""

    worker: str
    process: str
    weight: int
    parameters: str

    @property
    def age(self) -> tuple[int, str]:
        return process_age(self.process)


def check_worker_id(worker: str) -> str:
    """Return a worker id that can be part of a client id. Raises ConfigError."""
    if not _WORKER_ID.fullmatch(worker):
        raise ConfigError(
            f"worker id {worker!r} cannot be used: 1 to 128 letters, digits, '.', '-' or '_'",
            hint="choose another: --worker-id",
        )
    return worker


def encode_member(member: Member) -> str:
    """The member's client id, the only field through which Kafka shows a member to the others."""
    return _PREFIX + "/".join(map(str, member))


def decode_member(client_id: str) -> Member | None:
    """The member with this client id; None for other clients in the group."""
    parts = client_id.removeprefix(_PREFIX).split("/")
    if not client_id.startswith(_PREFIX) or len(parts) != len(Member._fields):
        return None
    worker, process, weight, parameters = parts
    if not (weight.isdecimal() and int(weight)):
        return None
    return Member(worker, process, int(weight), parameters)


def ring_parameters(tasks: Iterable[TaskId]) -> str:
    """A fingerprint of everything besides members and owners that determines the ring's assignment."""
    text = "\0".join([str(RING_VERSION), str(VIRTUAL_NODES), *sorted(map(str, tasks))])
    return blake2b(text.encode(), digest_size=6).hexdigest()


class Owner(NamedTuple):
    """The owner of a task, by its entry `seq`. `released`: it gave the task up, and is preferred for getting it back.

    `problem`: why the task failed there or, if it is not `released`, why it waits there. `database`: the database of a
    sink task's positions, whose epoch is then `seq`; empty for a task with a journal. `retrying`: it waits because a
    record is retried. `tasks`: the number of tasks of a sink group, if they have several partitions; otherwise 0.
    """

    seq: int
    worker: str
    process: str
    released: bool = False
    problem: str = ""
    database: str = ""
    retrying: bool = False
    tasks: int = 0

    def reads(self, task: TaskId, partition: int) -> bool:
        """Whether the owner of this sink task reads a partition."""
        return (partition % self.tasks if self.tasks else partition) == task.number

    @property
    def order(self) -> tuple[int, bool]:
        """Of two notes about a task, the one with the higher order counts, in whatever order they arrive."""
        return self.seq, self.released


class Claim(NamedTuple):
    """The worker that prepares for a task. `ready`: a handoff would be short. An empty worker withdraws the claim.

    `problem`: why the worker could not acquire the task; it does not retry.
    """

    worker: str
    process: str
    ready: bool = False
    problem: str = ""


class DeferredGroup(NamedTuple):
    """A group that could not start in this process, and why. An empty problem: it has started."""

    worker: str
    process: str
    problem: str


class Suspected(NamedTuple):
    """Suspicions about records of a task, each with its topic and the topic's id.

    None: there are no suspicions any more.
    """

    suspects: tuple[tuple[str, str, Suspect], ...] = ()


class MeasuredSpeed(NamedTuple):
    """How fast a worker has recovered. For predictions."""

    worker: str
    speed: RecoverySpeed


About = (
    Owner | Claim | Departure | Revocation | PeerAddress | DeferredGroup | Suspected | MeasuredSpeed
)  # what a note says


class _NotedDeparture(NamedTuple):
    """A departure in a note, as older releases read it. An empty process: no process of the worker has left."""

    worker: str
    process: str


class _NotedOwner(NamedTuple):
    """An owner in a note. Older releases refuse a note if this has more fields, and ignore more fields of `Note`."""

    seq: int
    worker: str
    process: str
    released: bool = False
    problem: str = ""
    database: str = ""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One record of the workers' topic, about a task (group, partition) or about a process."""

    version: int
    group: str = ""
    partition: int = -1
    owner: _NotedOwner | None = None
    claim: Claim | None = None
    departure: _NotedDeparture | None = None
    # A release that does not know these fields ignores the note.
    waiting: DeferredGroup | None = None
    suspected: Suspected | None = None

    @property
    def key(self) -> bytes:
        """The record's key; compaction keeps the last note for each."""
        if self.departure is not None:
            return f"left/{self.departure.worker}".encode()
        if self.waiting is not None:
            return f"waits/{self.group}/{self.waiting.worker}".encode()
        if self.suspected is not None:
            return f"suspected/{self.group}/{self.partition}".encode()
        kind = "owner" if self.owner is not None else "claim"
        return f"{kind}/{self.group}/{self.partition}".encode()


class _RetryNote(Note, frozen=True, array_like=True):
    """The note of an owner that retries a record. All others are written without this field, as by older releases."""

    retrying: bool = False


class _SpeedNote(_RetryNote, frozen=True, array_like=True):
    """The note of a worker about its speed. All others are written without this field, as by older releases."""

    measured: MeasuredSpeed | None = None

    @property
    def key(self) -> bytes:
        return super().key if self.measured is None else f"speed/{self.measured.worker}".encode()


class _PeerNote(_SpeedNote, frozen=True, array_like=True):
    """A note about the end of processes that peers see. All others are written without these fields.

    `by` and `number`: of the departure. A release that does not know them reads a departure, and a revocation as the
    departure of no process.
    """

    by: str = ""
    number: int = 0
    revocation: Revocation | None = None
    address: PeerAddress | None = None

    @property
    def key(self) -> bytes:
        return super().key if self.address is None else f"address/{self.address.worker}".encode()


class _SinkNote(_PeerNote, frozen=True, array_like=True):
    """The note of the owner of a sink task with several partitions. All others are written without this field."""

    tasks: int = 0


_VERSION = 1
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_SinkNote)


def encode_note(task: TaskId | None, about: About) -> tuple[bytes, bytes]:
    """(key, value) of the record."""
    group, partition = (task.group, task.number) if task is not None else ("", -1)
    note = Note(
        _VERSION,
        group,
        partition,
        _NotedOwner._make(about[: len(_NotedOwner._fields)]) if isinstance(about, Owner) else None,
        about if isinstance(about, Claim) else None,
        _noted_departure(about),
        about if isinstance(about, DeferredGroup) else None,
        about if isinstance(about, Suspected) else None,
    )
    if isinstance(about, Owner) and about.tasks:
        note = _SinkNote(**msgspec.structs.asdict(note), retrying=about.retrying, tasks=about.tasks)
    elif isinstance(about, Owner) and about.retrying:
        note = _RetryNote(**msgspec.structs.asdict(note), retrying=True)
    elif isinstance(about, MeasuredSpeed):
        note = _SpeedNote(**msgspec.structs.asdict(note), measured=about)
    elif isinstance(about, Departure) and about.by:
        note = _PeerNote(**msgspec.structs.asdict(note), by=about.by, number=about.number)
    elif isinstance(about, Revocation):
        note = _PeerNote(**msgspec.structs.asdict(note), revocation=about)
    elif isinstance(about, PeerAddress):
        note = _PeerNote(**msgspec.structs.asdict(note), address=about)
    return note.key, _encoder.encode(note)


def _noted_departure(about: About) -> _NotedDeparture | None:
    if isinstance(about, Departure):
        return _NotedDeparture(about.worker, about.process)
    return _NotedDeparture(about.worker, "") if isinstance(about, Revocation) else None


def _departure_of(note: _PeerNote) -> Departure | None:
    if note.departure is None:
        return None
    return Departure(*note.departure, note.by, note.number) if note.by else Departure(*note.departure)


def decode_note(app: str, data: bytes) -> tuple[TaskId, About] | None:
    """The note; None if this release does not know it. Notes are hints, so this is not an error."""
    try:
        note = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    owner = Owner(*note.owner, note.retrying, note.tasks) if note.owner is not None else None
    left = note.revocation or note.address or _departure_of(note)
    about = owner or note.claim or left or note.waiting or note.suspected or note.measured
    if note.version != _VERSION or about is None:
        return None
    return TaskId(app, note.group, note.partition), about


@dataclass(frozen=True)
class Roster:
    """The members and notes that one read returned. Equal rosters give equal assignments in every process."""

    members: Collection[Member] = ()
    owners: Mapping[TaskId, Owner] = field(default_factory=dict)
    claims: Mapping[TaskId, Claim] = field(default_factory=dict)
    departed: Collection[str] = ()  # processes

    def workers(self) -> dict[str, Member]:
        """The current process of each worker, by worker id: the newest one.

        Older ones were killed, and Kafka has not removed them yet. So a restarted worker takes its place at once.
        """
        return self._workers

    @cached_property
    def _workers(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for member in sorted(self.members, key=lambda member: member.age):
            if member.process not in self.departed:
                found[member.worker] = member
            else:
                found.pop(member.worker, None)  # an older process, which was killed and is still listed
        return found

    def ring_members(self) -> dict[str, Member]:
        """The workers that share the tasks: all that compute the same ring as the oldest one.

        Workers of another version of the app or of this package wait until the last of them has left. So two workers
        never compute different assignments.
        """
        workers = self.workers()
        if not workers:
            return {}
        parameters = min(workers.values(), key=lambda member: member.age).parameters
        return {worker: member for worker, member in workers.items() if member.parameters == parameters}

    def is_running(self, task: TaskId) -> bool:
        """Whether a live member runs the task."""
        owner = self.owners.get(task)
        if owner is None or owner.released:
            return False
        member = self.workers().get(owner.worker)
        return member is not None and member.process == owner.process

    def assignment(self, tasks: Collection[TaskId]) -> dict[TaskId, str]:
        """The worker of each task, according to the ring; empty without members."""
        members = self.ring_members()
        if not members:
            return {}
        names = {str(task): task for task in tasks}
        owners = {}
        for name, task in names.items():
            owner, claim = self.owners.get(task), self.claims.get(task)
            if owner is not None and owner.worker in members:
                owners[name] = owner.worker
            elif claim is not None and claim.worker in members:
                # This worker has started to take over. A worker that joins now must not start as well.
                owners[name] = claim.worker
        found = assign(list(names), {worker: member.weight for worker, member in members.items()}, owners)
        return {task: found[name] for name, task in names.items()}


class TaskRole(Enum):
    """What a worker is doing about a task.

    ::

        ABSENT --claim--> RESTORING --acquired--> LIVE --release--> LEAVING --> ABSENT
           \\--standby--> STANDBY --claim--/           \\--its own error--> FAILED
    """

    ABSENT = "absent"
    STANDBY = "standby"
    RESTORING = "restoring"
    LIVE = "live"
    LEAVING = "leaving"
    FAILED = "failed"


class AssignmentAction(Enum):
    """The next action for a task. CLAIM: fence, restore, acquire. START_STANDBY: keep a standby copy of the
    state. DROP_STANDBY: drop it."""

    CLAIM = "claim"
    START_STANDBY = "start standby"
    DROP_STANDBY = "drop standby"
    RELEASE = "release"


def decide(
    roster: Roster,
    me: Member,
    assigned: Mapping[TaskId, str],
    places: Mapping[TaskId, TaskRole],
    *,
    settled: bool,
) -> dict[TaskId, AssignmentAction]:
    """The actions that `me` starts now; tasks without an action are left out. `assigned`: by this roster.

    `settled`: this worker is listed, and the previous read listed the same members. Until then, it acquires only tasks
    that it owned last: otherwise workers that start together would fence each other for tasks that no worker runs.

        row  the ring says  role           the task                              action
        1    me             ABSENT/STANDBY was mine last, or                     CLAIM
                                           no worker runs it, and settled        CLAIM
        2    me             ABSENT         another process runs it               START_STANDBY
        3    another        LIVE           that worker is ready for it           RELEASE
        4    another        STANDBY                                              DROP_STANDBY
        5    anything else                                                       nothing
    """
    result: dict[TaskId, AssignmentAction] = {}
    for task, worker in assigned.items():
        role = places.get(task, TaskRole.ABSENT)
        if worker == me.worker and role in {TaskRole.ABSENT, TaskRole.STANDBY}:
            owner = roster.owners.get(task)
            mine = owner is not None and owner.worker == me.worker
            if mine or (settled and not roster.is_running(task)):
                result[task] = AssignmentAction.CLAIM
            elif settled and role is TaskRole.ABSENT:
                result[task] = AssignmentAction.START_STANDBY
        elif worker != me.worker and role is TaskRole.LIVE:
            claim = roster.claims.get(task)
            if claim is not None and claim.ready and claim.worker == worker:
                result[task] = AssignmentAction.RELEASE
        elif worker != me.worker and role is TaskRole.STANDBY:
            result[task] = AssignmentAction.DROP_STANDBY
    return result
