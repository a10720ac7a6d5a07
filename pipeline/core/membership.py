"""Which worker runs which task: members, what they tell each other, and what one of them does about it. Pure.

Ownership is a fence in Kafka, never anything in here: two workers that disagree for a moment cost a restore and
nothing else. What is in here makes them agree:

    members   the dynamic members of Kafka group `<app>.workers`; a member's client id says who it is
    owners    who acquired a task last, with the number of the acquire (or release) entry: the higher number counts
    claims    who is making itself ready for a task that another worker still has, or that nobody has

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
from pipeline.core.names import TaskId
from pipeline.core.ring import RING_VERSION, VIRTUAL_NODES, assign
from pipeline.errors import ConfigError

__all__ = [
    "About",
    "AssignmentAction",
    "Claim",
    "DeferredGroup",
    "Departure",
    "Member",
    "Note",
    "Owner",
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
    """Names a process of a worker, once and for all."""
    return f"{started_ms}-{token.hex()}"


def process_age(process: str) -> tuple[int, str]:
    """The older process has the smaller one; all workers see the same."""
    started_ms = process.partition("-")[0]
    return int(started_ms) if started_ms.isdecimal() else 0, process


class Member(NamedTuple):
    """A process that is a member. `parameters`: what it computes the ring from (`ring_parameters`)."""

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
    """The member's client id, which is all that Kafka tells the others about it."""
    return _PREFIX + "/".join(map(str, member))


def decode_member(client_id: str) -> Member | None:
    """The member behind a client id; None for anybody else in the group."""
    parts = client_id.removeprefix(_PREFIX).split("/")
    if not client_id.startswith(_PREFIX) or len(parts) != len(Member._fields):
        return None
    worker, process, weight, parameters = parts
    if not (weight.isdecimal() and int(weight)):
        return None
    return Member(worker, process, int(weight), parameters)


def ring_parameters(tasks: Iterable[TaskId]) -> str:
    """A fingerprint of all that the ring's answer depends on beside members and owners."""
    text = "\0".join([str(RING_VERSION), str(VIRTUAL_NODES), *sorted(map(str, tasks))])
    return blake2b(text.encode(), digest_size=6).hexdigest()


class Owner(NamedTuple):
    """Who has a task, by its entry `seq`. `released`: it has it no longer, and would be the first to have it back.

    `problem`: why the task failed there; not `released`: what keeps it waiting there. `database`: where a sink task
    has its positions, and then `seq` is its epoch; empty for a task with a journal.
    """

    seq: int
    worker: str
    process: str
    released: bool = False
    problem: str = ""
    database: str = ""

    @property
    def order(self) -> tuple[int, bool]:
        """Of two notes on a task the one with the higher order counts, whichever came later."""
        return self.seq, self.released


class Claim(NamedTuple):
    """Who makes itself ready for a task. `ready`: a handoff would be short. An empty worker: nobody any more.

    `problem`: why it could not take the task, and does not try again.
    """

    worker: str
    process: str
    ready: bool = False
    problem: str = ""


class Departure(NamedTuple):
    """A process that has left. Kafka drops a member in the middle of a rebalance only after its session time-out."""

    worker: str
    process: str


class DeferredGroup(NamedTuple):
    """A group that could not begin in this process, and why; an empty problem: it has begun."""

    worker: str
    process: str
    problem: str


class Suspected(NamedTuple):
    """Records of a task that crash its process, each with its topic and the topic's id; none: no longer."""

    suspects: tuple[tuple[str, str, Suspect], ...] = ()


About = Owner | Claim | Departure | DeferredGroup | Suspected


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One record of the workers' topic: about a task (group, partition), or about a process."""

    version: int
    group: str = ""
    partition: int = -1
    owner: Owner | None = None
    claim: Claim | None = None
    departure: Departure | None = None
    # Releases that do not know these take the note for none.
    waiting: DeferredGroup | None = None
    suspected: Suspected | None = None

    @property
    def key(self) -> bytes:
        """What compaction keeps the last one of."""
        if self.departure is not None:
            return f"left/{self.departure.worker}".encode()
        if self.waiting is not None:
            return f"waits/{self.group}/{self.waiting.worker}".encode()
        if self.suspected is not None:
            return f"suspected/{self.group}/{self.partition}".encode()
        kind = "owner" if self.owner is not None else "claim"
        return f"{kind}/{self.group}/{self.partition}".encode()


_VERSION = 1
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Note)


def encode_note(task: TaskId | None, about: About) -> tuple[bytes, bytes]:
    """(key, value) of the record."""
    group, partition = (task.group, task.partition) if task is not None else ("", -1)
    note = Note(
        _VERSION,
        group,
        partition,
        about if isinstance(about, Owner) else None,
        about if isinstance(about, Claim) else None,
        about if isinstance(about, Departure) else None,
        about if isinstance(about, DeferredGroup) else None,
        about if isinstance(about, Suspected) else None,
    )
    return note.key, _encoder.encode(note)


def decode_note(app: str, data: bytes) -> tuple[TaskId, About] | None:
    """The note; None for one that this release does not know. Notes are hints, so that is no error."""
    try:
        note = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    about = note.owner or note.claim or note.departure or note.waiting or note.suspected
    if note.version != _VERSION or about is None:
        return None
    return TaskId(app, note.group, note.partition), about


@dataclass(frozen=True)
class Roster:
    """What one look shows: members, and what is noted. Equal looks give equal answers in every process."""

    members: Collection[Member] = ()
    owners: Mapping[TaskId, Owner] = field(default_factory=dict)
    claims: Mapping[TaskId, Claim] = field(default_factory=dict)
    departed: Collection[str] = ()  # processes

    def workers(self) -> dict[str, Member]:
        """The process of each worker that counts, by worker id: the youngest.

        The others are ghosts: killed, and not yet missed by Kafka. So a restarted worker takes its place at once.
        """
        return self._workers

    @cached_property
    def _workers(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for member in sorted(self.members, key=lambda member: member.age):
            if member.process not in self.departed:
                found[member.worker] = member
        return found

    def ring_members(self) -> dict[str, Member]:
        """Those that share the tasks: all that compute the same ring as the oldest of them.

        Workers of another version of the app, or of this package, wait until the last of those has left: there
        are never two answers to who runs a task.
        """
        workers = self.workers()
        if not workers:
            return {}
        parameters = min(workers.values(), key=lambda member: member.age).parameters
        return {worker: member for worker, member in workers.items() if member.parameters == parameters}

    def is_running(self, task: TaskId) -> bool:
        """Whether a living process has the task."""
        owner = self.owners.get(task)
        if owner is None or owner.released:
            return False
        member = self.workers().get(owner.worker)
        return member is not None and member.process == owner.process

    def assignment(self, tasks: Collection[TaskId]) -> dict[TaskId, str]:
        """The worker of each task, by the ring; empty without members."""
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
                # It has begun to take over; who joins meanwhile must not begin as well.
                owners[name] = claim.worker
        found = assign(list(names), {worker: member.weight for worker, member in members.items()}, owners)
        return {task: found[name] for name, task in names.items()}


class TaskRole(Enum):
    """What a worker is doing about a task.

    ::

        ABSENT --claim--> RESTORING --acquired--> LIVE --release--> LEAVING --> ABSENT
           \\--follow--> FOLLOWING --claim--/          \\--its own error--> FAILED
    """

    ABSENT = "absent"
    FOLLOWING = "following"
    RESTORING = "restoring"
    LIVE = "live"
    LEAVING = "leaving"
    FAILED = "failed"


class AssignmentAction(Enum):
    """What it should begin to do. CLAIM: fence, restore, acquire. FOLLOW: keep a copy of the state ready."""

    CLAIM = "claim"
    FOLLOW = "follow"
    FORGET = "forget"
    RELEASE = "release"


def decide(
    roster: Roster,
    me: Member,
    assigned: Mapping[TaskId, str],
    places: Mapping[TaskId, TaskRole],
    *,
    settled: bool,
) -> dict[TaskId, AssignmentAction]:
    """What `me` begins to do; tasks that stay as they are, are absent. `assigned`: by this roster.

    `settled`: this worker is listed, and so were the same members at the look before. Until then it takes only
    what was its own: a group of workers that starts would otherwise fence each other for tasks nobody has.

        row  the ring says  place          the task                              action
        1    me             ABSENT/FOLL.   was mine last, or                     CLAIM
                                           nobody runs it, and this is settled   CLAIM
        2    me             ABSENT         another process runs it               FOLLOW
        3    another        LIVE           that worker is ready for it           RELEASE
        4    another        FOLLOWING                                            FORGET
        5    anything else                                                       nothing
    """
    result: dict[TaskId, AssignmentAction] = {}
    for task, worker in assigned.items():
        place = places.get(task, TaskRole.ABSENT)
        if worker == me.worker and place in {TaskRole.ABSENT, TaskRole.FOLLOWING}:
            owner = roster.owners.get(task)
            mine = owner is not None and owner.worker == me.worker
            if mine or (settled and not roster.is_running(task)):
                result[task] = AssignmentAction.CLAIM
            elif settled and place is TaskRole.ABSENT:
                result[task] = AssignmentAction.FOLLOW
        elif worker != me.worker and place is TaskRole.LIVE:
            claim = roster.claims.get(task)
            if claim is not None and claim.ready and claim.worker == worker:
                result[task] = AssignmentAction.RELEASE
        elif worker != me.worker and place is TaskRole.FOLLOWING:
            result[task] = AssignmentAction.FORGET
    return result
