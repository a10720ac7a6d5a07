"""The worker: runs its share of an app's tasks, reads their inputs, and reacts to errors that end a task.

The handlers of all tasks run on the thread that calls `step`. Restores and commits run on the executor. One method,
`_react`, reacts to all errors, by the table in `pipeline.runtime.reactions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.api.app import DeclaredApp
from pipeline.api.group import DeclaredGroup
from pipeline.config import WorkerSettings
from pipeline.core.membership import AssignmentAction, Owner, TaskRole
from pipeline.core.names import TaskId
from pipeline.errors import DisplacedError, InvariantError, PipelineError, RefusedError
from pipeline.ports import Pending, Record, Store, error_fields, task_fields
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.assignment.retried import RetriedRecords
from pipeline.runtime.backends import plan_backends
from pipeline.runtime.checkpoints.checkpointer import Checkpointer
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.counters import WorkerCounters, counts_of
from pipeline.runtime.crashes import Crashes
from pipeline.runtime.deferred_start import DeferredStarts, begin
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import LiveTask, RestoredTask, RestoreRequest
from pipeline.runtime.maintenance import Maintenance
from pipeline.runtime.reactions import Reaction, Reactions
from pipeline.runtime.resources import Resources
from pipeline.runtime.watchdog import AtWork

__all__ = ["Worker"]

UNREACHABLE_WAIT_S = (0.5, 1.5)
_GOES_ON = "start the worker again. It resumes after the last commit; no data is lost"


class Worker:
    """Runs this worker's share of an app's tasks. `start`, then `step` until `stop`, then `close`."""

    def __init__(
        self,
        app: DeclaredApp,
        environment: Environment,
        settings: WorkerSettings,
        groups: Sequence[DeclaredGroup] | None = None,
    ) -> None:
        self._app = app
        self._groups = list(groups) if groups is not None else app.groups
        self._environment = environment
        self._settings = settings
        self._runs: list[GroupRun] = []
        self._restoring: dict[TaskId, Pending[RestoredTask]] = {}
        self._fenced: dict[TaskId, Pending[Owner | None]] = {}
        self._closing: dict[TaskId, Pending[None]] = {}
        self._failing: list[tuple[GroupRun, LiveTask, Pending[PipelineError]]] = []
        self._ownership: Ownership | None = None
        self._turns = 0
        self._pace = CommitRate(environment.clock, settings.max_commits_per_s)
        self._resources = Resources()
        self._upkeep = Maintenance(self._runs, environment, settings)
        self._checkpointer = Checkpointer(self._runs, environment, settings)
        self._beginnings = DeferredStarts(environment)
        self._crashes = Crashes(environment.crash_log, environment.log)
        self._quiet = False
        self._stopping = False
        self._ended = Counter[str]()
        self._reactions = Reactions()
        self._retried = RetriedRecords(environment.clock)
        self.failures: dict[TaskId, PipelineError] = {}
        self.displaced: DisplacedError | None = None  # by another process of this worker's id

    def start(self) -> None:
        """Check the app against the cluster, ensure genesis, and join the other workers.

        Raises ConfigError, FatalTaskError (a group lost its journal), UnreachableError.
        """
        # Claim the directory first, so that a start that will fail cannot fence a healthy worker.
        self._environment.stores.claim(self._app.name)
        environment, settings = self._environment, self._settings
        planned = plan_backends(
            self._app, self._groups, self._resources.get, environment, settings, self._pace
        )
        plans = [plan for plan, _ in planned]
        away = [begin(backend) for _, backend in planned]
        self._ownership = Ownership(self._app.name, plans, self._environment, self._settings)
        self._ownership.join(lambda: (self._turns, _place(self.at_work)))
        self._runs.extend(
            GroupRun(plan, self._environment.sources.open(plan.id.consumer_group), backend)
            for plan, backend in planned
        )
        for run, error in zip(self._runs, away, strict=True):
            if error is not None:
                self._beginnings.add(run, error)
        self._crashes.begin(self._app.name, self._ownership.me.process)
        self._environment.log.info(
            "worker_started",
            app=self._app.name,
            worker=self._settings.worker_id,
            task_count=sum(plan.partitions for plan in plans),
        )

    def step(self) -> bool:
        """One turn: start restored tasks, poll, process, seal, retire. Returns whether anything changed."""
        self._turns += 1
        self._pace.turn()
        moved = self._begin_late() | self._carry_out_assignment() | self._take_live()
        timeout_s = (
            0.0 if moved or not self._quiet else self._settings.poll_timeout_ms / 1000 / len(self._runs)
        )
        for run in self._runs:
            moved |= self._poll(run, timeout_s)
            for task in list(run.tasks.values()):
                moved |= self._advance(run, task)
            for task in list(run.leaving.values()):
                moved |= self._advance_leaving(run, task)
            run.balance(2 * self._settings.max_poll_records)
            self._note_backend_problem(run)
        moved |= self._react_to_failures()
        if self._ownership is not None:
            live = (task for run in self._runs for task in run.tasks.values())
            self._retried.turn(live, self._ownership)
        moved |= self._checkpointer.turn()
        for run, task_id, error in self._upkeep.turn():
            self._react(run, task_id, error)
        self._quiet = not moved
        return moved

    @property
    def finished(self) -> bool:
        """Whether all its tasks have failed, or another process has its worker id."""
        if self.displaced is not None:
            return True
        busy = (
            self._restoring
            or self._fenced
            or not self._own().settled
            or self._beginnings
            or any(run.tasks or run.leaving for run in self._runs)
        )
        return bool(self.failures) and not busy

    @property
    def idle(self) -> bool:
        """Whether no restore, handoff, checkpoint or commit is in progress, and no overlay is open.

        Input may still wait.
        """
        if (
            self._restoring
            or self._fenced
            or self._failing
            or self._ownership is None
            or not self._ownership.at_rest
        ):
            return False
        if self._checkpointer.busy or self._beginnings:
            return False
        return all(task.idle and not run.leaving for run in self._runs for task in run.tasks.values())

    @property
    def environment(self) -> Environment:
        """The ports of this worker."""
        return self._environment

    @property
    def at_work(self) -> AtWork | None:
        """The record that a handler is processing; None outside of handlers. For a watchdog on another thread."""
        tasks = [task for run in list(self._runs) for task in list(run.tasks.values())]
        return next((at for task in tasks if (at := task.at_work) is not None), None)

    def stop(self) -> None:
        """Commit what is open, release every task, and leave.

        Raises nothing: records that cannot be committed are processed again after the next start.
        """
        self._stopping = True
        self._checkpointer.stop()
        for run in self._runs:
            for task in [*run.tasks.values(), *run.leaving.values()]:
                task.stop_waiting()
            for partition in list(run.tasks):
                run.release(partition)
        for run in self._runs:  # start all before waiting, so that their commits overlap
            for task in list(run.leaving.values()):
                self._advance_leaving(run, task)
        for run in self._runs:
            for task in list(run.leaving.values()):
                while task.id.partition in run.leaving:
                    self._wait_leaving(run, task)
            run.mirror()

    def close(self) -> None:
        """Close all clients and stores. Call it after `stop`, or instead of `stop` to leave immediately."""
        self._stopping = True
        self._checkpointer.stop()
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
        for run in self._runs:
            run.source.close()
            run.backend.close()
        self._resources.close()
        self._environment.executor.close()
        self._checkpointer.close()
        self._crashes.leave()
        self._environment.stores.release(self._app.name)
        self._environment.log.info("worker_stopped", app=self._app.name)

    @property
    def runs(self) -> Sequence[GroupRun]:
        """The groups that this worker runs, with their live tasks."""
        return self._runs

    def progress(self) -> WorkerCounters:
        """The worker's counts, for people and metrics."""
        live = [task for run in self._runs for task in (*run.tasks.values(), *run.leaving.values())]
        totals = sum(map(counts_of, live), Counter(self._ended))
        return WorkerCounters(
            records=totals["records"],
            outputs=totals["outputs"],
            rows=totals["rows"],
            commits=totals["commits"],
            skipped=totals["skipped"],
            dead_lettered=totals["dead_lettered"],
            retried=totals["retried"],
            duplicates=totals["duplicates"],
            late_duplicates=totals["late_duplicates"],
            live=len(live),
            restoring=len(self._restoring),
            standby=self._ownership.standby_count if self._ownership is not None else 0,
            failed=len(self.failures),
        )

    def _begin_late(self) -> bool:
        """Start groups whose database was unreachable when the worker started."""
        ended = () if self._stopping else self._beginnings.turn()
        for run, error in ended:
            self._own().reconsider()
            if error is not None:
                for task in run.plan.tasks:
                    self._fail(run, task, error)
        return bool(ended)

    def _carry_out_assignment(self) -> bool:
        """Start the actions that the ring requires."""
        for task in [task for task, closing in self._closing.items() if closing.done()]:
            del self._closing[task]
        self._learn_owners()
        if self._ownership is None or self._stopping:
            return False
        try:
            actions = self._ownership.turn(self._places)
        except DisplacedError as error:
            self._leave_to_newer_process(error)
            return True
        for task, action in actions.items():
            run = self._run_of(task)
            if action is AssignmentAction.RELEASE:
                self._environment.log.info("task_releasing", **task_fields(task))
                run.release(task.partition)
            elif task not in self._closing:
                self._begin_restore(run, task, copy_of=self._ownership.copy_of(task))
        self._ownership.clean(lambda: {*self._places(), *self._closing})
        return bool(actions)

    def _note_backend_problem(self, run: GroupRun) -> None:
        """A problem of a group's backend is noted for each of its tasks until it is solved."""
        problem = run.backend.poll_problem()
        if problem is not None:
            self._own().waits(run.plan.id, problem if run in self._beginnings else "")
            for task in run.tasks.values():
                self._own().troubled(task.id, task.applied.seq, problem)

    def _places(self) -> dict[TaskId, TaskRole]:
        places = dict.fromkeys(self.failures, TaskRole.FAILED)
        for run in self._runs:
            places.update({task.id: TaskRole.LIVE for task in run.tasks.values()})
            places.update({task.id: TaskRole.LEAVING for task in run.leaving.values()})
        # A fenced task counts as claimed until its owner is known.
        busy = [*self._restoring, *self._fenced, *self._beginnings.tasks]
        return {**places, **dict.fromkeys(busy, TaskRole.RESTORING)}

    def _learn_owners(self) -> None:
        """React to fenced tasks whose new owner is now known."""
        for task in [task for task, look in self._fenced.items() if look.done()]:
            look = self._fenced.pop(task)
            try:
                owner = look.result()
            except PipelineError as error:
                self._react(self._run_of(task), task, error)
                continue
            self._own().reconsider()
            if owner is None or owner.process == self._own().me.process:
                continue  # the client also reports a transaction time-out as fencing
            self._reactions.settled(task)
            self._environment.log.warning(
                "task_taken_over", **task_fields(task), owner=owner.worker, seq=owner.seq
            )
            try:
                self._own().lost(task, owner)
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
        process, noted = self._own().me.process, self._own().noted(task)
        asked = RestoreRequest(task, process, noted, wait_s, damage, copy_of, self._closing.pop(task, None))
        self._restoring[task] = run.backend.begin_restore(asked)

    def _take_live(self) -> bool:
        moved = False
        for task_id in [task for task, pending in self._restoring.items() if pending.done()]:
            moved = True
            pending = self._restoring.pop(task_id)
            run = self._run_of(task_id)
            try:
                ready = pending.result()
            except PipelineError as error:
                self._react(run, task_id, error)
                continue
            run.add(self._watched(run, ready.live()))
            self._reactions.settled(task_id)
            self._own().acquired(task_id, ready.applied.seq)
            self._environment.log.info(
                "task_live",
                **task_fields(task_id),
                seq=ready.applied.seq,
                restored_from=ready.start,
                replayed_entries=ready.replayed,
                restore_s=round(ready.seconds, 3),
                proof_ms=round(ready.proof_s * 1000, 1),
            )
        return moved

    def _watched(self, run: GroupRun, task: LiveTask) -> LiveTask:
        inputs = run.plan.identity.inputs
        topic_ids = {name: facts.topic_id for name, facts in inputs.items()}
        task.crashes = self._crashes.of(task.id, topic_ids, self._own())
        return task

    def _poll(self, run: GroupRun, timeout_s: float) -> bool:
        if not run.tasks:
            if timeout_s:
                self._environment.clock.sleep(timeout_s)
            return False
        records, failures = run.source.poll(self._settings.max_poll_records, timeout_s)
        for partition, batch in run.batches(records):
            task = run.tasks.get(partition)
            if task is not None:
                self._offer(run, task, batch)
        for failure in failures:
            task = run.tasks.get(failure.partition.partition)
            if task is not None:
                position = task.applied.positions[failure.partition.topic]
                why = self._upkeep.begin_explanation(run, task.id, failure, position)
                self._failing.append((run, task, why))
        return bool(records)

    def _react_to_failures(self) -> bool:
        """React to unreadable partitions once the reason is known. Tasks that have ended since are ignored."""
        ended = [each for each in self._failing if each[2].done()]
        self._failing = [each for each in self._failing if not each[2].done()]
        for run, task, why in ended:
            if run.tasks.get(task.id.partition) is task:
                self._react(run, task.id, why.result())
        return bool(ended)

    def _offer(self, run: GroupRun, task: LiveTask, records: list[Record]) -> None:
        try:
            task.offer(records[0].topic(), records)
        except PipelineError as error:
            self._react(run, task.id, error)

    def _advance(self, run: GroupRun, task: LiveTask) -> bool:
        try:
            moved = task.advance()
            if task.poison is not None and task.idle:
                raise task.poison
            if task.crashes.suspects:
                task.crashes.passed(task.applied.positions)
        except PipelineError as error:
            self._react(run, task.id, error)
            return True
        return moved

    def _advance_leaving(self, run: GroupRun, task: LiveTask) -> bool:
        """Advance the tasks being released. Each is removed once its release entry is committed."""
        try:
            moved = task.advance()
            if not task.idle:
                return moved
            if task.poison is not None:
                raise task.poison
        except PipelineError as error:
            self._react(run, task.id, error)
            return True
        self._own().released(task.id, task.applied.seq)
        self._drop(run, task.id)
        return True

    def _wait_leaving(self, run: GroupRun, task: LiveTask) -> None:
        try:
            task.wait()
        except PipelineError as error:
            self._react(run, task.id, error)
        else:
            self._advance_leaving(run, task)

    def _react(self, run: GroupRun, task_id: TaskId, error: PipelineError) -> None:
        task = run.tasks.get(task_id.partition) or run.leaving.get(task_id.partition)
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
            self._fenced[task_id] = run.backend.find_owner(task_id, applied)
        elif reaction is Reaction.RESTORE_LATER and (lost := self._upkeep.lost(run, task_id)) is not None:
            self._fail(run, task_id, lost)
        elif reaction is Reaction.RESTORE_LATER:
            if not run.backend.unanswered(error):
                log.warning("task_restarting", **task_fields(task_id), **error_fields(error))
            self._begin_restore(run, task_id, wait_s=self._environment.random.uniform(*UNREACHABLE_WAIT_S))
        else:
            seq = task.applied.seq if task is not None and not self._stopping else None
            self._fail(run, task_id, error, seq)

    def _fail(self, run: GroupRun, task_id: TaskId, error: PipelineError, seq: int | None = None) -> None:
        """Fail a task. `seq`: that of its last entry, if it was live. The log entry always includes a next step."""
        self._drop(run, task_id)
        reason = str(error)
        error.hint = error.hint or _GOES_ON
        self.failures[task_id] = error
        self._environment.log.error("task_failed", **task_fields(task_id), **error_fields(error))
        if seq is not None:
            self._own().released(task_id, seq, reason)
        elif not self._stopping:
            self._own().could_not_take(task_id, reason)

    def _leave_to_newer_process(self, error: DisplacedError) -> None:
        """Leave the tasks to another process with this worker's id."""
        self.displaced = error
        self._environment.log.error("worker_displaced", **error_fields(error))
        for run in self._runs:
            for task in list(run.tasks.values()):
                self._drop(run, task.id)

    def _drop(self, run: GroupRun, task_id: TaskId) -> None:
        """Close the task if it is live or being released."""
        task = run.remove(task_id.partition)
        if task is None:
            return
        self._ended.update(counts_of(task))
        closing = task.close()
        if closing is not None:
            self._closing[task_id] = closing

    def _own(self) -> Ownership:
        if self._ownership is None:
            raise InvariantError("the worker has not been started")
        return self._ownership

    def _run_of(self, task: TaskId) -> GroupRun:
        return next(run for run in self._runs if run.plan.id.group == task.group)


def _place(at: AtWork | None) -> object:
    """Identifies a record, to detect a handler's progress."""
    return None if at is None else (at.task, at.record.offset())
