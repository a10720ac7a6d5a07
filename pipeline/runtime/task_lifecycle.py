"""The life of a worker's tasks: `TaskLifecycle` acquires, restores, releases and fails them.

    assigned ----> restoring ----> live ----> leaving ----> released
        ^              |             |            |
        |              +--- error ---+------------+
        |                     |
        |                  `react` ----> failed
        |                     |
        +-- after a wait -----+----> fenced: the journal shows whether another worker has it

The ring decides which tasks this worker runs (`pipeline.runtime.assignment`). One method, `react`, reacts to all
errors, by the table in `pipeline.runtime.reactions`. Processing thread only: restores and searches for owners run on
executors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.core.membership import AssignmentAction, TaskRole
from pipeline.core.names import TaskId
from pipeline.core.notes import Owner
from pipeline.core.recovery_time import RecoveryMeter
from pipeline.errors import (
    ConfigError,
    DisplacedError,
    InvariantError,
    PipelineError,
    RefusedError,
    SinkUnreachableError,
)
from pipeline.ports import Pending, Store, error_fields, task_fields
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.crashes import Crashes
from pipeline.runtime.deferred_start import DeferredStarts
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import LiveTask, RestoredTask, RestoreRequest
from pipeline.runtime.metrics.figures import counts_of
from pipeline.runtime.reactions import Reaction, Reactions

__all__ = ["TaskLifecycle"]

UNREACHABLE_WAIT_S = (0.5, 1.5)
_RESUMES = "start the worker again. It resumes after the last commit; no data is lost"


class TaskLifecycle:
    """The tasks of one worker.

    Args:
        runs: The groups that the worker runs. The worker fills it when it starts.
        environment: The ports.
        crashes: The records at which a process has crashed.
        lost: Returns why no restore of a task can succeed; None if no reason is known.
    """

    def __init__(
        self,
        runs: Sequence[GroupRun],
        environment: Environment,
        crashes: Crashes,
        lost: Callable[[GroupRun, TaskId], PipelineError | None],
    ) -> None:
        self._runs = runs
        self._environment = environment
        self._crashes = crashes
        self._lost = lost
        self._ownership: Ownership | None = None
        self._restoring: dict[TaskId, Pending[RestoredTask]] = {}
        self._fenced: dict[TaskId, Pending[Owner | None]] = {}
        self._closing: dict[TaskId, Pending[None]] = {}
        self._deferred_starts = DeferredStarts(environment)
        self._reactions = Reactions()
        self._stopping = False
        self.recovery = RecoveryMeter()
        self.failures: dict[TaskId, PipelineError] = {}
        self.displaced: DisplacedError | None = None  # by another process of this worker's id
        self.refused: ConfigError | None = None  # a permission that it needs to share tasks is missing
        self.ended: dict[TaskId, Counter[str]] = {}  # the counts of tasks that were closed

    def begin(self, ownership: Ownership) -> None:
        """Use `ownership`, which `close` leaves. The worker adds the runs afterwards."""
        self._ownership = ownership
        began_s = self._environment.process_began_s
        if began_s is not None:
            self.recovery.started(self._environment.clock.monotonic_s() - began_s)

    def defer(self, run: GroupRun, error: SinkUnreachableError) -> None:
        """Start a group later, whose first attempt failed with `error`."""
        self._deferred_starts.add(run, error)

    @property
    def ownership(self) -> Ownership:
        """What this worker knows about the owners of tasks. Raises InvariantError before the start."""
        if self._ownership is None:
            raise InvariantError("the worker has not been started")
        return self._ownership

    @property
    def finished(self) -> bool:
        """Whether all its tasks have failed, another process has its worker id, or a permission is missing."""
        if self.displaced is not None or self.refused is not None:
            return True
        busy = (
            self._restoring
            or self._fenced
            or not self.ownership.settled
            or self._deferred_starts
            or any(run.tasks or run.leaving for run in self._runs)
        )
        return bool(self.failures) and not busy

    @property
    def busy(self) -> bool:
        """Whether a start, a restore or a handoff is in progress, or this worker does not know its tasks yet."""
        return bool(
            self._restoring
            or self._fenced
            or self._deferred_starts
            or self._ownership is None
            or not self._ownership.at_rest
        )

    @property
    def roles(self) -> dict[TaskId, TaskRole]:
        """What this worker does about each task, copies of other workers' tasks included."""
        return {**dict.fromkeys(self.ownership.standby, TaskRole.STANDBY), **self._roles()}

    @property
    def restoring_count(self) -> int:
        """The number of tasks that are being restored."""
        return len(self._restoring)

    @property
    def standby_count(self) -> int:
        """The number of tasks for which this worker keeps a standby copy."""
        return self._ownership.standby_count if self._ownership is not None else 0

    def turn(self) -> bool:
        """Do what is due. Returns whether anything changed."""
        # All three must run. The last one also writes the notes about tasks that are live now. A handler may not return
        # from the first record of such a task, and then this thread would never write them.
        return self._end_deferred_starts() | self._start_restored() | self._carry_out_assignment()

    def stop(self) -> None:
        """Acquire no more tasks. An error of a task no longer leads to a restore."""
        self._stopping = True

    def release(self, run: GroupRun, task: LiveTask) -> None:
        """End a task that is leaving and whose last entry is committed."""
        self.ownership.released(task.id, task.applied.seq)
        self._drop(run, task.id)

    def close(self) -> None:
        """Close all tasks, also those being restored, and leave the other workers."""
        self._stopping = True
        for run in self._runs:
            for partition in list(run.tasks):
                run.tasks.pop(partition).close()
            for partition in list(run.leaving):
                run.leaving.pop(partition).close()
        for pending in self._restoring.values():
            try:
                pending.result().close()
            except PipelineError as error:
                self._environment.log.info("restore_failed_at_stop", **error_fields(error))
        self._restoring.clear()
        if self._ownership is not None:
            self._ownership.leave()

    def react(self, run: GroupRun, task_id: TaskId, error: PipelineError) -> None:
        """React to the error that ended a task, live or not, by the table in `pipeline.runtime.reactions`."""
        task = run.tasks.get(task_id.number) or run.leaving.get(task_id.number)
        self._drop(run, task_id)
        log = self._environment.log
        reaction = self._reactions.to(error, task_id, live=task is not None, stopping=self._stopping)
        if reaction is Reaction.YIELD:  # the new owner starts after the last commit
            log.info("task_owned_by_other_worker", **task_fields(task_id), **error_fields(error))
        elif reaction is Reaction.SET_ASIDE:
            self._begin_restore(run, task_id, damage=error.message)
        elif reaction is Reaction.RESTORE:
            refused = isinstance(error, RefusedError)
            log.warning(
                "commit_refused" if refused else "task_superseded",
                **task_fields(task_id),
                **error_fields(error),
            )
            self._begin_restore(run, task_id)
        elif reaction is Reaction.FIND_OWNER:
            log.warning("task_fenced", **task_fields(task_id), **error_fields(error))
            applied = task.applied if task is not None else None
            if self._environment.meter is not None:
                self._environment.meter.fenced(task_id)
            self._fenced[task_id] = run.backend.find_owner(task_id, applied)
        elif reaction is Reaction.RESTORE_LATER and (lost := self._lost(run, task_id)) is not None:
            self._fail(run, task_id, lost)
        elif reaction is Reaction.RESTORE_LATER:
            if not run.backend.unanswered(error):
                log.warning("task_restarting", **task_fields(task_id), **error_fields(error))
            self._begin_restore(run, task_id, wait_s=self._environment.random.uniform(*UNREACHABLE_WAIT_S))
        else:
            seq = task.applied.seq if task is not None and not self._stopping else None
            self._fail(run, task_id, error, seq)

    def note_backend_problem(self, run: GroupRun) -> None:
        """A problem of a group's backend is noted for each of its tasks until it is solved."""
        problem = run.backend.poll_problem()
        if problem is not None:
            self.ownership.note_deferred(run.plan.id, problem if run in self._deferred_starts else "")
            for task in run.tasks.values():
                self.ownership.note_problem(task.id, task.applied.seq, problem)

    def _end_deferred_starts(self) -> bool:
        """Start groups whose database was unreachable when the worker started."""
        ended = () if self._stopping else self._deferred_starts.turn()
        for run, error in ended:
            self.ownership.reconsider()
            if error is not None:
                for task in run.plan.tasks:
                    self._fail(run, task, error)
        return bool(ended)

    def _carry_out_assignment(self) -> bool:
        """Start the actions that the ring requires."""
        for task in [task for task, closing in self._closing.items() if closing.done()]:
            del self._closing[task]
        self._handle_found_owners()
        if self._ownership is None or self._stopping:
            return False
        try:
            actions = self._ownership.turn(self._roles)
        except DisplacedError as error:
            self._leave_to_newer_process(error)
            return True
        except ConfigError as error:
            self.refused = error
            return True
        for task, action in actions.items():
            run = self._run_of(task)
            if action is AssignmentAction.RELEASE:
                self._environment.log.info("task_releasing", **task_fields(task))
                run.release(task.number)
            elif task not in self._closing:
                self._begin_restore(run, task, copy_of=self._ownership.copy_of(task))
        self._ownership.clean(lambda: {*self._roles(), *self._closing})
        return bool(actions)

    def _roles(self) -> dict[TaskId, TaskRole]:
        roles = dict.fromkeys(self.failures, TaskRole.FAILED)
        for run in self._runs:
            roles.update({task.id: TaskRole.LIVE for task in run.tasks.values()})
            roles.update({task.id: TaskRole.LEAVING for task in run.leaving.values()})
        # A fenced task counts as claimed until its owner is known.
        busy = [*self._restoring, *self._fenced, *self._deferred_starts.tasks]
        return {**roles, **dict.fromkeys(busy, TaskRole.RESTORING)}

    def _handle_found_owners(self) -> None:
        """React to fenced tasks whose new owner is now known."""
        for task in [task for task, search in self._fenced.items() if search.done()]:
            search = self._fenced.pop(task)
            try:
                owner = search.result()
            except PipelineError as error:
                self.react(self._run_of(task), task, error)
                continue
            self.ownership.reconsider()
            if owner is None or owner.process == self.ownership.me.process:
                continue  # the client also reports a transaction time-out as fencing
            self._reactions.settled(task)
            self._environment.log.warning(
                "task_taken_over", **task_fields(task), owner=owner.worker, seq=owner.seq
            )
            try:
                self.ownership.lost(task, owner)
            except DisplacedError as error:
                self._leave_to_newer_process(error)

    def _begin_restore(
        self,
        run: GroupRun,
        task: TaskId,
        wait_s: float = 0.0,
        damage: str | None = None,
        copy_of: Callable[[], Store | None] | None = None,
    ) -> None:
        """Start a restore on the executor. `damage`: set the state aside first, for this reason.

        `copy_of`: returns the standby copy to start from.
        """
        process, noted = self.ownership.me.process, self.ownership.last_noted_seq(task)
        request = RestoreRequest(task, process, noted, wait_s, damage, copy_of, self._closing.pop(task, None))
        self._restoring[task] = run.backend.begin_restore(request)

    def _start_restored(self) -> bool:
        moved = False
        for task_id in [task for task, pending in self._restoring.items() if pending.done()]:
            moved = True
            pending = self._restoring.pop(task_id)
            run = self._run_of(task_id)
            try:
                ready = pending.result()
            except PipelineError as error:
                self.react(run, task_id, error)
                continue
            run.add(self._watched(run, ready.live()))
            self._reactions.settled(task_id)
            self.ownership.acquired(task_id, ready.applied.seq)
            if self._environment.meter is not None:
                self._environment.meter.restored(task_id, ready.seconds)
            self._environment.log.info(
                "task_live",
                **task_fields(task_id),
                seq=ready.applied.seq,
                restored_from=ready.start,
                replayed_entries=ready.replayed,
                restore_s=round(ready.seconds, 3),
                copy_s=round(ready.copy_s, 3),
                proof_ms=round(ready.proof_s * 1000, 1),
            )
            if ready.work is not None:
                self.recovery.add(ready.work)
        if moved and not self._restoring:
            if self.ownership.speed_before is not None:
                self.recovery.resume(self.ownership.speed_before)
            self.ownership.measured(self.recovery.speed())
        return moved

    def _watched(self, run: GroupRun, task: LiveTask) -> LiveTask:
        inputs = run.plan.identity.inputs
        topic_ids = {name: facts.topic_id for name, facts in inputs.items()}
        task.crashes = self._crashes.of(
            task.id, run.plan.inputs_of(task.id.number), topic_ids, self.ownership
        )
        return task

    def _fail(self, run: GroupRun, task_id: TaskId, error: PipelineError, seq: int | None = None) -> None:
        """Fail a task. `seq`: that of its last entry, if it was live. The log entry always includes a next step."""
        self._drop(run, task_id)
        reason = str(error)
        error.hint = error.hint or _RESUMES
        self.failures[task_id] = error
        self._environment.log.error("task_failed", **task_fields(task_id), **error_fields(error))
        if seq is not None:
            self.ownership.released(task_id, seq, reason)
        elif not self._stopping:
            self.ownership.note_failed_acquire(task_id, reason)

    def _leave_to_newer_process(self, error: DisplacedError) -> None:
        """Leave the tasks to another process with this worker's id."""
        self.displaced = error
        self._environment.log.error("worker_displaced", **error_fields(error))
        for run in self._runs:
            for task in list(run.tasks.values()):
                self._drop(run, task.id)

    def _drop(self, run: GroupRun, task_id: TaskId) -> None:
        """Close the task if it is live or being released."""
        task = run.remove(task_id.number)
        if task is None:
            return
        self.ended.setdefault(task_id, Counter()).update(counts_of(task))
        closing = task.close()
        if closing is not None:
            self._closing[task_id] = closing

    def _run_of(self, task: TaskId) -> GroupRun:
        return next(run for run in self._runs if run.plan.id.group == task.group)
