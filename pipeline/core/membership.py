"""Which worker runs which task: members, what they know about each other, and the next action of each worker. Pure.

A fence in Kafka decides ownership; this module does not. If two workers disagree for a moment, the only cost is a
restore. They reach agreement by:

    members   the dynamic members of the Kafka group `<app>.workers`; the client id identifies a member
    owners    the last worker that acquired a task, with the seq of its acquire (or release) entry; the highest counts
    claims    a worker that prepares to take a task that another worker runs, or that no worker runs

Owners and claims are notes in the compacted topic `pipeline.workers.<app>` (`core/notes.py`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from pipeline.core.departures import process_age
from pipeline.core.names import TaskId
from pipeline.core.notes import Claim, Owner
from pipeline.core.ring import RING_VERSION, VIRTUAL_NODES, assign, exact_shares
from pipeline.errors import ConfigError

__all__ = [
    "AssignmentAction",
    "Member",
    "Roster",
    "TaskRole",
    "check_worker_id",
    "decide",
    "decode_member",
    "encode_member",
    "process_name",
    "ring_parameters",
]

_PREFIX = "pipeline/1/"
_OF, _AND = "=", ","  # in parameters; names of groups contain neither
_PARAMETERS = re.compile(r"[0-9.]+(,[A-Za-z0-9_-]+=[1-9][0-9]{0,4})+")
_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def process_name(started_ms: int, token: bytes) -> str:
    """A unique name for a process of a worker."""
    return f"{started_ms}-{token.hex()}"


class Member(NamedTuple):
    """A process that is a member. `parameters`: the version of its ring, and its groups (`ring_parameters`)."""

    worker: str
    process: str
    weight: int
    parameters: str

    @property
    def age(self) -> tuple[int, str]:
        return process_age(self.process)

    @property
    def groups(self) -> Mapping[str, int]:
        """The groups that it runs, each with the number of its tasks; empty for a process of an earlier release."""
        if _OF not in self.parameters:
            return {}
        pairs = (pair.split(_OF) for pair in self.parameters.split(_AND)[1:])
        return {group: int(count) for group, count in pairs}

    def ring_of(self, group: str) -> str | None:
        """What determines this member's ring of a group, besides members and owners; None if it does not run the group.

        A process of an earlier release runs all groups.
        """
        if _OF not in self.parameters:
            return self.parameters
        count = self.groups.get(group)
        return None if count is None else f"{self.parameters.split(_AND, 1)[0]}{_AND}{count}"


def check_worker_id(worker: str) -> str:
    """Return a worker id that can be part of a client id. Raises ConfigError."""
    if not _WORKER_ID.fullmatch(worker):
        raise ConfigError(
            f"worker id {worker!r} cannot be used: it must have 1 to 128 letters, digits, '.', '-' or '_'",
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
    if not (weight.isdecimal() and int(weight)) or (
        _OF in parameters and not _PARAMETERS.fullmatch(parameters)
    ):
        return None
    return Member(worker, process, int(weight), parameters)


def ring_parameters(tasks: Iterable[TaskId]) -> str:
    """The version of the ring, then the groups of these tasks, each with the number of its tasks.

    All members see these parameters. So a member that runs only some groups can compute the assignment of all groups.
    """
    counts = Counter(task.group for task in tasks)
    version = f"{RING_VERSION}.{VIRTUAL_NODES}"
    return _AND.join([version, *(f"{group}{_OF}{count}" for group, count in sorted(counts.items()))])


@dataclass(frozen=True)
class Roster:
    """The members and notes that one read returned. Equal rosters give equal assignments in every process."""

    members: Collection[Member] = ()
    owners: Mapping[TaskId, Owner] = field(default_factory=dict)
    claims: Mapping[TaskId, Claim] = field(default_factory=dict)
    departed: Collection[str] = ()  # processes

    def workers(self) -> dict[str, Member]:
        """The current process of each worker, by worker id: the newest one.

        Older processes were killed, and Kafka has not removed them yet. So a restarted worker replaces them at once.
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

    def ring_members(self, group: str) -> dict[str, Member]:
        """The workers that share the tasks of a group: all that run it and compute the same ring as the oldest of them.

        Workers that run the group and compute another ring, because their version of the app or of this package
        differs, wait until the last of these has left. So two workers never compute different assignments.
        """
        able = {
            worker: member for worker, member in self.workers().items() if member.ring_of(group) is not None
        }
        if not able:
            return {}
        ring = min(able.values(), key=lambda member: member.age).ring_of(group)
        return {worker: member for worker, member in able.items() if member.ring_of(group) == ring}

    def others_before(self, me: Member, group: str) -> list[str]:
        """The workers that must leave before `me` gets tasks of a group, because they compute another ring.

        Empty if `me` shares the tasks.
        """
        members = self.ring_members(group)
        return [] if me.worker in members else list(members)

    def is_running(self, task: TaskId) -> bool:
        """Whether a live member runs the task."""
        owner = self.owners.get(task)
        if owner is None or owner.released:
            return False
        member = self.workers().get(owner.worker)
        return member is not None and member.process == owner.process

    def assignment(self, tasks: Collection[TaskId]) -> dict[TaskId, str]:
        """The worker of each of these tasks, according to the ring. Tasks of a group without members are left out.

        The rings of all groups of all members are computed, in the order of their names, because rounding in one group
        affects the next groups (`core/ring.py`).
        """
        wanted: dict[str, dict[str, TaskId]] = defaultdict(dict)
        for task in tasks:
            wanted[task.group][str(task)] = task
        app = next(iter(tasks)).app if tasks else ""
        result: dict[TaskId, str] = {}
        owed: dict[str, Fraction] = defaultdict(Fraction)
        for group in sorted({*wanted, *(name for member in self.members for name in member.groups)}):
            members = self.ring_members(group)
            if not members:
                continue
            weights = {worker: member.weight for worker, member in members.items()}
            count = next(iter(members.values())).groups.get(group)
            own = {str(task := TaskId(app, group, number)): task for number in range(count or 0)} or wanted[
                group
            ]
            found = assign(list(own), weights, self._holders(own, weights), owed)
            result.update((task, found[name]) for name, task in wanted[group].items() if name in found)
            for worker, share in exact_shares(len(own), weights).items():
                owed[worker] += share
            for worker in found.values():
                owed[worker] -= 1
        return result

    def _holders(self, tasks: Mapping[str, TaskId], workers: Collection[str]) -> dict[str, str]:
        """The current worker of each task, by the task's name, if it is one of `workers`."""
        holders = {}
        for name, task in tasks.items():
            owner, claim = self.owners.get(task), self.claims.get(task)
            if owner is not None and owner.worker in workers:
                holders[name] = owner.worker
            elif claim is not None and claim.worker in workers:
                # This worker has started to take over. A worker that joins now must not start as well.
                holders[name] = claim.worker
        return holders


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
