"""The tasks that this worker acquires and releases: the ring's assignment, carried out step by step.

It reads the members (`roster`), keeps standby copies of tasks that will move here (`standby`), and tells the worker
which tasks to claim and which to release. Only the fence decides which process may write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime

from pipeline.config import WorkerSettings
from pipeline.core.departures import DepartureRecord, process_age
from pipeline.core.membership import (
    AssignmentAction,
    Member,
    TaskRole,
    check_worker_id,
    decide,
    process_name,
    ring_parameters,
)
from pipeline.core.names import GroupId, TaskId
from pipeline.core.notes import Claim, DeferredGroup, Owner, Suspected
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.errors import DisplacedError
from pipeline.ports import Store, task_fields
from pipeline.runtime.assignment.cleanup import StateCleanup
from pipeline.runtime.assignment.roster import RosterWatch
from pipeline.runtime.assignment.standby import StandbyTasks
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import GroupPlan

__all__ = ["Ownership"]

# Kafka evicts a dead process with this worker id sooner than this.
EVICTION_S = 15.0
MAX_PROBLEM = 2_000  # characters of a problem in a note


class Ownership:
    """Processing thread only."""

    def __init__(
        self, app: str, plans: Iterable[GroupPlan], environment: Environment, settings: WorkerSettings
    ) -> None:
        self._cluster_ids: dict[TaskId, str] = {}
        self._databases: dict[TaskId, str] = {}
        self._tasks: dict[TaskId, int] = {}  # of the groups of sink tasks with several partitions
        for plan in plans:
            self._cluster_ids.update(dict.fromkeys(plan.tasks, plan.identity.cluster_id))
            if plan.group.sinks:
                self._databases.update(dict.fromkeys(plan.tasks, plan.group.sinks[0].sink.database))
                if plan.task_count < plan.partitions:
                    self._tasks.update(dict.fromkeys(plan.tasks, plan.task_count))
        self._environment = environment
        self._settings = settings
        self.me = Member(
            check_worker_id(settings.worker_id),
            process_name(environment.clock.wall_ms(), environment.random.token(6)),
            settings.weight,
            ring_parameters(self._cluster_ids),
        )
        self._watch = RosterWatch(app, self.me, environment, settings)
        self._standby_tasks = StandbyTasks(environment)
        with_state = [task for task in self._cluster_ids if task not in self._databases]
        delay_s = settings.state_cleanup_delay_s
        self._cleanup = StateCleanup(with_state, self.me.worker, environment, delay_s)
        self._ready_s: dict[TaskId, float] = {}
        self._deferred: dict[GroupId, str] = {}
        self._newer_process_since_s: float | None = None
        self._outside = False
        self._reconsider = False
        self._at_rest = False
        self._assigned: frozenset[TaskId] | None = None

    @property
    def at_rest(self) -> bool:
        """Whether every task is where the ring assigns it, as far as this worker knows."""
        return self._at_rest and self._watch.settled

    @property
    def settled(self) -> bool:
        """Whether tasks without a worker may be claimed now: only once the members have not changed for a while."""
        return self._watch.settled

    @property
    def standby_count(self) -> int:
        return len(self._standby_tasks)

    def join(self, progress: Callable[[], object]) -> None:
        """Become a member. Raises ConfigError, UnreachableError."""
        self._watch.join(progress)

    def turn(self, places: Callable[[], Mapping[TaskId, TaskRole]]) -> dict[TaskId, AssignmentAction]:
        """The claims and releases to start now. `places`: the roles of the tasks that are not ABSENT here.

        Raises DisplacedError if a newer process has this worker's id.
        """
        changed = self._watch.turn()
        for task in self._standby_tasks.turn():
            self._ready_s[task] = self._environment.clock.monotonic_s()
            self._claim(task, ready=True)
            self._reconsider = True
        if not (changed or self._reconsider) or not self._watch.has_read_members:
            return {}
        self._reconsider = False
        if not self._is_the_process_of_its_id():
            return {}
        return self._decide(places())

    def _decide(self, places: Mapping[TaskId, TaskRole]) -> dict[TaskId, AssignmentAction]:
        roster, settled = self._watch.roster, self._watch.settled
        self._note_waiting()
        known = {**dict.fromkeys(self._standby_tasks.tasks, TaskRole.STANDBY), **places}
        assigned = roster.assignment(self._cluster_ids)
        self._assigned = frozenset(task for task, worker in assigned.items() if worker == self.me.worker)
        actions = decide(roster, self.me, assigned, known, settled=settled)
        self._note_rest(assigned, known, actions)
        for task, action in list(actions.items()):
            if action is AssignmentAction.START_STANDBY:
                del actions[task]
                if task in self._databases:
                    self._standby_tasks.begin_without_state(task)
                else:
                    self._standby_tasks.begin(task, self._cluster_ids[task])
                self._claim(task, ready=False)
            elif action is AssignmentAction.DROP_STANDBY:
                del actions[task]
                self._drop_standby(task)
            elif action is AssignmentAction.CLAIM and task not in self._standby_tasks:
                self._claim(task, ready=False)
        for task in self._overdue(known):
            # Its worker does not release it, although it is a live member. Fencing it is safe.
            self._environment.log.warning("task_not_released", **task_fields(task))
            actions[task] = AssignmentAction.CLAIM
        return actions

    def clean(self, here: Callable[[], Iterable[TaskId]]) -> None:
        """Remove states of tasks that another worker owns. `here`: the tasks that this worker still uses."""
        self._cleanup.turn(
            lambda: {*here(), *self._standby_tasks.tasks, *self._standby_tasks.closing}, self._watch.roster
        )

    def copy_of(self, task: TaskId) -> Callable[[], Store | None] | None:
        """The standby copy of a task that is claimed now."""
        self._ready_s.pop(task, None)
        return self._standby_tasks.release_copy(task)

    def last_noted_seq(self, task: TaskId) -> int:
        """The seq or epoch of the task's last owner in the notes; 0 if there is none."""
        owner = self._watch.roster.owners.get(task)
        return owner.seq if owner is not None else 0

    def place_of(self, task: TaskId) -> tuple[str, str]:
        """The worker that has a task, and the address of its HTTP port; empty if it is not known. Any thread."""
        owner = self._watch.roster.owners.get(task)
        if owner is None or owner.released:
            return "", ""
        http = self._watch.http.get(owner.worker)
        known = http is not None and http.process == owner.process
        return owner.worker, f"{http.host}:{http.port}" if http is not None and known else ""

    @property
    def members(self) -> int:
        """The number of live workers, as far as this worker knows."""
        return len(self._watch.roster.workers())

    @property
    def assigned(self) -> Collection[TaskId] | None:
        """The tasks that the ring assigns to this worker; None until it knows the other workers."""
        return self._assigned if self._watch.settled else None

    @property
    def standby(self) -> Collection[TaskId]:
        """The tasks of which this worker keeps a standby copy."""
        return self._standby_tasks.tasks

    def acquired(self, task: TaskId, seq: int) -> None:
        meter, before = self._environment.meter, self._watch.roster.owners.get(task)
        if meter is not None and before is not None and before.worker not in {"", self.me.worker}:
            meter.moved(task, planned=before.released and not before.problem)
        self._watch.note(task, self._mine(task, seq))
        self._watch.note(task, Claim("", ""))

    def released(self, task: TaskId, seq: int, problem: str = "") -> None:
        """The task no longer runs here: it was released, or has a `problem`."""
        self._watch.note(task, self._mine(task, seq, released=True, problem=problem))

    def note_problem(self, task: TaskId, seq: int, problem: str, *, retrying: bool = False) -> None:
        """The task runs here and waits because of `problem`; an empty one means that it is solved.

        `retrying`: it waits because a record is retried.
        """
        self._watch.note(task, self._mine(task, seq, problem=problem)._replace(retrying=retrying))

    def blocked(self, problem: str) -> None:
        """No task of this process continues, because of `problem`. From any thread."""
        self._watch.begin_problem_note(problem[:MAX_PROBLEM])

    def note_failed_acquire(self, task: TaskId, problem: str) -> None:
        """The task failed here before it was live."""
        self._watch.note(task, Claim(self.me.worker, self.me.process, problem=problem[:MAX_PROBLEM]))

    def suspected(self, task: TaskId) -> Suspected:
        """The suspicions about its records in the notes."""
        return self._watch.suspected.get(task, Suspected())

    def suspect(self, task: TaskId, suspected: Suspected) -> None:
        """Note suspicions for the other workers, one of which may acquire the task next.

        The note is written before this returns, because the process may crash as soon as it handles the records.
        """
        if suspected != self.suspected(task):
            self._watch.note(task, suspected)
            if suspected.suspects:
                self._watch.write_notes()

    @property
    def speed_before(self) -> RecoverySpeed | None:
        """How fast an earlier process of this worker has recovered; None if the notes do not say."""
        return self._watch.speed_before

    def measured(self, speed: RecoverySpeed) -> None:
        """Note how fast this worker has recovered."""
        self._watch.note_speed(speed)

    def note_deferred(self, group: GroupId, problem: str) -> None:
        """Note why a whole group cannot start here; empty if it can. An unchanged reason is noted once."""
        if problem != self._deferred.get(group, ""):
            self._deferred[group] = problem
            about = DeferredGroup(self.me.worker, self.me.process, problem[:MAX_PROBLEM])
            self._watch.note(TaskId(*group, -1), about)

    def lost(self, task: TaskId, owner: Owner) -> None:
        """The journal names another process as the owner.

        Raises DisplacedError if that is a newer process with this worker's id.
        """
        self._watch.note_owner(task, owner)
        if owner.worker == self.me.worker and process_age(owner.process) > self.me.age:
            raise _same_worker_id(self.me.worker, owner.process)

    @property
    def departure_record(self) -> DepartureRecord:
        """What a supervisor writes when this process has ended."""
        return self._watch.departure_record

    @property
    def peers(self) -> tuple[int, int]:
        """The processes that this one watches, and how many of them answer."""
        return self._watch.peers.targets, self._watch.peers.reached

    def reconsider(self) -> None:
        """A task left this worker: decide again, without waiting for the next read."""
        self._reconsider = True

    def leave(self) -> None:
        """Close the standby copies, write the remaining notes, and leave the group."""
        for task in list(self._ready_s):
            self._claim_nothing(task)
        self._standby_tasks.close()
        self._watch.depart()
        self._watch.leave()

    def _mine(self, task: TaskId, seq: int, *, released: bool = False, problem: str = "") -> Owner:
        database = self._databases.get(task, "")
        tasks = self._tasks.get(task, 0)
        return Owner(
            seq, self.me.worker, self.me.process, released, problem[:MAX_PROBLEM], database, tasks=tasks
        )

    def _note_rest(
        self,
        assigned: Mapping[TaskId, str],
        known: Mapping[TaskId, TaskRole],
        actions: Mapping[TaskId, AssignmentAction],
    ) -> None:
        moving = {TaskRole.STANDBY, TaskRole.LEAVING}
        away = any(
            place in moving or (place is TaskRole.LIVE and assigned.get(task) != self.me.worker)
            for task, place in known.items()
        )
        absent = any(
            worker == self.me.worker and known.get(task, TaskRole.ABSENT) is TaskRole.ABSENT
            for task, worker in assigned.items()
        )
        self._at_rest = not (away or absent or actions)

    def _overdue(self, known: Mapping[TaskId, TaskRole]) -> list[TaskId]:
        now = self._environment.clock.monotonic_s()
        return [
            task
            for task, ready_s in self._ready_s.items()
            if known.get(task) is TaskRole.STANDBY
            and task in self._standby_tasks
            and now - ready_s > self._settings.handoff_timeout_s
        ]

    def _drop_standby(self, task: TaskId) -> None:
        self._standby_tasks.drop(task)
        self._ready_s.pop(task, None)
        self._claim_nothing(task)

    def _claim(self, task: TaskId, *, ready: bool) -> None:
        self._watch.note(task, Claim(self.me.worker, self.me.process, ready))

    def _claim_nothing(self, task: TaskId) -> None:
        claim = self._watch.roster.claims.get(task)
        if claim is not None and claim.process == self.me.process:
            self._watch.note(task, Claim("", ""))

    def _note_waiting(self) -> None:
        """Log once that workers of another version must leave first."""
        roster = self._watch.roster
        before = {worker for group in self.me.groups for worker in roster.others_before(self.me, group)}
        if before and not self._outside:
            self._environment.log.warning(
                "waiting_for_other_version",
                members=sorted(before),
                reason="these members run another version of the app or of this package",
                hint="stop them; this worker starts tasks when the last of them has left",
            )
        self._outside = bool(before)

    def _is_the_process_of_its_id(self) -> bool:
        """Whether this is the newest process with its worker id. Raises DisplacedError if it is not for too long."""
        member = self._watch.roster.workers().get(self.me.worker)
        now = self._environment.clock.monotonic_s()
        if member is None or member.process == self.me.process:
            self._newer_process_since_s = None
            return True
        if self._newer_process_since_s is None:
            self._newer_process_since_s = now
        if now - self._newer_process_since_s > EVICTION_S:
            raise _same_worker_id(self.me.worker, member.process)
        return False


def _same_worker_id(worker: str, newer_process: str) -> DisplacedError:
    """The error if two processes have one worker id: the newer one owns the tasks."""
    started_ms, _ = process_age(newer_process)
    when = datetime.fromtimestamp(started_ms / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    return DisplacedError(
        f"a newer process, started at {when} UTC, has the worker id {worker} and takes over this worker's tasks",
        hint="stop one of them, or give each its own id with --worker-id; do not restart this one unchanged",
    )
