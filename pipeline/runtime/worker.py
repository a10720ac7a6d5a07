"""The worker: runs its share of an app's tasks, and reads their inputs.

The handlers of all tasks run on the thread that calls `step`. Restores and commits run on the executor. `TaskLifecycle`
acquires and releases the tasks, and reacts to the errors that end one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.config import WorkerSettings
from pipeline.core.departures import DepartureRecord
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, DisplacedError, PipelineError
from pipeline.ports import Pending, Record, Source
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.assignment.retried import RetriedRecords
from pipeline.runtime.backends import Resources, plan_backends
from pipeline.runtime.calls.call_loop import CallLoop
from pipeline.runtime.checkpoints.checkpointer import Checkpointer
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.crashes import Crashes
from pipeline.runtime.deferred_start import begin
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import LiveTask
from pipeline.runtime.maintenance import Maintenance
from pipeline.runtime.metrics.figures import WorkerCounters, WorkerFigures, counts_of, task_figures
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.row_queries import RowQueries
from pipeline.runtime.task.cache import CacheBudget
from pipeline.runtime.task_lifecycle import TaskLifecycle
from pipeline.runtime.task_log import TaskLog
from pipeline.runtime.watchdog import AtWork

__all__ = ["Worker"]

# A turn costs about 0.02 ms for each task, so the polls of an idle worker are longer the more tasks it has. Notes of
# other workers and signals wait for the end of a poll.
IDLE_POLLS = 4
TASKS_PER_IDLE_POLL = 2
LONGEST_IDLE_POLL_S = 0.1


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
        self._log = TaskLog(environment.log)
        self._environment = environment = replace(environment, log=self._log)
        self._settings = settings
        self._runs: list[GroupRun] = []
        self._failing: list[tuple[GroupRun, LiveTask, Pending[PipelineError]]] = []
        self._turns = 0
        self._commit_rate = CommitRate(
            environment.clock, settings.max_commits_per_s, settings.commit_interval_ms
        )
        self._caches = CacheBudget(settings.cache_bytes)
        self._resources = Resources()
        self._maintenance = Maintenance(self._runs, environment, settings)
        self._checkpointer = Checkpointer(self._runs, environment, settings)
        self._crashes = Crashes(environment.crash_log, environment.log)
        self._calls = CallLoop(
            environment.event_loops, self._crashes, environment.clock, environment.log, environment.meter
        )
        self._lifecycle = TaskLifecycle(self._runs, environment, self._crashes, self._maintenance.lost)
        self._retried = RetriedRecords(environment.clock)
        self._changed_nothing = False  # in the last turn

    def start(self) -> None:
        """Check the app against the cluster, ensure genesis, and join the other workers.

        Raises ConfigError, FatalTaskError (a group lost its journal), UnreachableError.
        """
        # Claim the directory first, so that a start that will fail cannot fence a healthy worker.
        self._environment.stores.claim(self._app.name)
        environment, settings = self._environment, self._settings
        planned = plan_backends(
            self._app,
            self._groups,
            self._resources.get,
            environment,
            settings,
            self._commit_rate,
            self._caches,
            self._calls,
        )
        plans = [plan for plan, _ in planned]
        self._log.plan(plans)
        unreachable = [begin(backend) for _, backend in planned]
        ownership = Ownership(self._app.name, plans, self._environment, self._settings)
        self._lifecycle.begin(ownership)
        ownership.join(lambda: self.mark)
        self._runs.extend(
            GroupRun(plan, self._source_of(plan), backend, settings) for plan, backend in planned
        )
        for run, error in zip(self._runs, unreachable, strict=True):
            if error is not None:
                self._lifecycle.defer(run, error)
        self._crashes.begin(self._app.name, ownership.me.process)
        self._environment.log.info(
            "worker_started",
            app=self._app.name,
            worker=self._settings.worker_id,
            task_count=sum(plan.task_count for plan in plans),
        )

    def step(self) -> bool:
        """One turn: start restored tasks, poll, process, seal, retire. Returns whether anything changed."""
        self._turns += 1
        moved = self._lifecycle.turn()
        waits = self._changed_nothing and not moved and not self._calls.in_flight
        timeout_s = self._poll_wait_s() if waits else 0.0
        self._commit_rate.turn(self._lifecycle.ownership.members)
        for run in self._runs:
            moved |= self._poll(run, timeout_s)
            for task in list(run.tasks.values()):
                moved |= self._advance(run, task)
            for task in list(run.leaving.values()):
                moved |= self._advance_leaving(run, task)
            run.balance()
            self._lifecycle.note_backend_problem(run)
        moved |= self._react_to_failures()
        live = (task for run in self._runs for task in run.tasks.values())
        self._retried.turn(live, self._lifecycle.ownership)
        moved |= self._checkpointer.turn()
        for run, task_id, error in self._maintenance.turn():
            self._lifecycle.react(run, task_id, error)
        moved |= self._calls.turn(moved=moved)
        self._changed_nothing = not moved
        return moved

    @property
    def failures(self) -> Mapping[TaskId, PipelineError]:
        """The errors of the tasks that have failed."""
        return self._lifecycle.failures

    @property
    def refused(self) -> ConfigError | None:
        """The missing permission without which it cannot share tasks; None if there is none."""
        return self._lifecycle.refused

    @property
    def displaced(self) -> DisplacedError | None:
        """Why another process with this worker's id continues instead; None if there is none."""
        return self._lifecycle.displaced

    @property
    def finished(self) -> bool:
        """Whether all its tasks have failed, another process has its worker id, or a permission is missing."""
        return self._lifecycle.finished

    @property
    def idle(self) -> bool:
        """Whether no restore, handoff, checkpoint or commit is in progress, and no overlay is open.

        Input may still wait.
        """
        if self._lifecycle.busy or self._failing or self._checkpointer.busy:
            return False
        return all(task.idle and not run.leaving for run in self._runs for task in run.tasks.values())

    @property
    def process(self) -> str:
        """The name of this process among the workers of the app."""
        return self._lifecycle.ownership.me.process

    @property
    def departure_record(self) -> DepartureRecord:
        """What a supervisor writes when this process has ended."""
        return self._lifecycle.ownership.departure_record

    @property
    def environment(self) -> Environment:
        """The ports of this worker."""
        return self._environment

    @property
    def at_work(self) -> AtWork | None:
        """The record that a handler is processing; None outside of handlers. For a watchdog on another thread."""
        tasks = [task for run in list(self._runs) for task in list(run.tasks.values())]
        return next((at for task in tasks if (at := task.at_work) is not None), None)

    def note_hang(self, at: AtWork, since: str) -> None:
        """Note for `pipeline status` that a handler does not return. For a watchdog on another thread.

        Args:
            at: The record that the handler is processing.
            since: When the handler was first seen with it.
        """
        if at.ignores_cancellation:
            return  # the processing thread is free, and notes it
        self._lifecycle.ownership.blocked(
            f"handler {at.handler} has not returned from {at.place} since {since}: all tasks of this process wait"
            "\n  -> follow runbooks/handler-hangs.md"
        )

    def stop(self) -> None:
        """Commit what is open, release every task, and leave.

        Raises nothing: records that cannot be committed are processed again after the next start.
        """
        self._lifecycle.stop()
        self._checkpointer.stop()
        for run in self._runs:
            for task in [*run.tasks.values(), *run.leaving.values()]:
                task.stop_waiting()
            for number in list(run.tasks):
                run.release(number)
        for run in self._runs:  # start all before waiting, so that their commits overlap
            for task in list(run.leaving.values()):
                self._advance_leaving(run, task)
        for run in self._runs:
            for task in list(run.leaving.values()):
                while task.id.number in run.leaving:
                    self._wait_leaving(run, task)
            run.mirror()

    def close(self) -> None:
        """Close all clients and stores. Call it after `stop`, or instead of `stop` to leave immediately."""
        self._checkpointer.stop()
        self._lifecycle.close()
        for run in self._runs:
            run.source.close()
            run.backend.close()
        self._resources.close(self._calls.finish)
        self._calls.close()
        self._environment.executor.close()
        self._checkpointer.close()
        self._crashes.leave()
        self._environment.stores.release(self._app.name)
        self._environment.log.info("worker_stopped", app=self._app.name)

    @property
    def runs(self) -> Sequence[GroupRun]:
        """The groups that this worker runs, with their live tasks."""
        return self._runs

    @property
    def mark(self) -> object:
        """A value that changes while the processing loop or a handler makes progress. Any thread may read it."""
        return self._turns, _record_id(self.at_work)

    @property
    def row_queries(self) -> RowQueries:
        """Reads committed rows of its live tasks, from any thread."""
        return RowQueries(self._runs, lambda: self._lifecycle.ownership, self._environment.clock.monotonic_s)

    def figures(self) -> WorkerFigures:
        """Its state and its counts at this moment, for metrics and probes. Processing thread only."""
        lifecycle, ownership = self._lifecycle, self._lifecycle.ownership
        return WorkerFigures(
            self._app.name,
            task_figures(self._runs, lifecycle.roles, lifecycle.ended),
            ownership.assigned,
            ownership.members,
            self._maintenance.kafka_unreachable_s,
            {run.plan.id: run.plan.task_count for run in self._runs},
            lifecycle.recovery.speed(),
            self._caches.total_bytes,
            ownership.peers,
        )

    def progress(self) -> WorkerCounters:
        """The worker's counts, for people and metrics."""
        live = [task for run in self._runs for task in (*run.tasks.values(), *run.leaving.values())]
        totals = sum((*self._lifecycle.ended.values(), *map(counts_of, live)), Counter[str]())
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
            late_events=totals["late_events"],
            removed_values=totals["removed_values"],
            removed_events=totals["removed_events"],
            live=len(live),
            restoring=self._lifecycle.restoring_count,
            standby=self._lifecycle.standby_count,
            failed=len(self.failures),
        )

    def _source_of(self, plan: GroupPlan) -> Source:
        return self._environment.sources.open(plan.id.consumer_group, plan.input_count)

    def _poll_wait_s(self) -> float:
        """How long each poll of this turn may wait."""
        tasks = sum(len(run.tasks) for run in self._runs)
        longest_s = self._settings.poll_timeout_ms / 1000
        if (
            len(self._runs) == 1 and self.idle
        ):  # its input ends the poll, and the input of another group would not
            by_tasks_s = min(longest_s * (tasks // TASKS_PER_IDLE_POLL), LONGEST_IDLE_POLL_S)
            longest_s = max(longest_s * IDLE_POLLS, by_tasks_s)
        return self._commit_rate.poll_wait_s(longest_s, tasks) / len(self._runs)

    def _poll(self, run: GroupRun, timeout_s: float) -> bool:
        if not run.tasks:
            if timeout_s:
                self._environment.clock.sleep(timeout_s)
            return False
        records, failures = run.source.poll(run.poll_size.limit, timeout_s)
        self._commit_rate.polled(len(records), more_wait=run.poll_size.polled(records))
        for partition, batch in run.batches(records):
            task = run.task_of(partition)
            if task is not None:
                self._offer(run, task, batch)
        for failure in failures:
            task = run.task_of(failure.partition.partition)
            if task is not None:
                position = run.applied(task)[failure.partition]
                why = self._maintenance.begin_explanation(run, task.id, failure, position)
                self._failing.append((run, task, why))
        return bool(records)

    def _react_to_failures(self) -> bool:
        """React to unreadable partitions once the reason is known. Tasks that have ended since are ignored."""
        ended = [each for each in self._failing if each[2].done()]
        self._failing = [each for each in self._failing if not each[2].done()]
        for run, task, why in ended:
            if run.tasks.get(task.id.number) is task:
                self._lifecycle.react(run, task.id, why.result())
        return bool(ended)

    def _offer(self, run: GroupRun, task: LiveTask, records: list[Record]) -> None:
        try:
            task.offer(run.name_of(records[0]), records)
        except PipelineError as error:
            self._lifecycle.react(run, task.id, error)

    def _advance(self, run: GroupRun, task: LiveTask) -> bool:
        try:
            moved = task.advance()
            if task.poison is not None and task.idle:
                raise task.poison
            if task.crashes.suspects:
                task.crashes.passed(task.applied.positions)
        except PipelineError as error:
            self._lifecycle.react(run, task.id, error)
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
            self._lifecycle.react(run, task.id, error)
            return True
        self._lifecycle.release(run, task)
        return True

    def _wait_leaving(self, run: GroupRun, task: LiveTask) -> None:
        try:
            task.wait()
        except PipelineError as error:
            self._lifecycle.react(run, task.id, error)
        else:
            self._advance_leaving(run, task)


def _record_id(at: AtWork | None) -> object:
    """Identifies a record, to detect a handler's progress."""
    return None if at is None else (at.task, at.record.offset())
