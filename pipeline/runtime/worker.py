"""The worker: owns the tasks of an app, reads their inputs, and reacts to whatever ends one of them.

Handlers of all tasks run on the thread that calls `step`; restores and commits run on the executor. Errors
are reacted to in one place, `_react`:

    superseded            restore the task again, from the journal
    damaged state         set it aside, restore the task from the journal; a second time the task has failed
    fenced                wait, look who did it, restore or leave the task to them
    outage or doubt       restore again, after a pause: the journal says what happened
    anything else         the task has failed; the others go on
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.app import App, Group
from pipeline.config import WorkerSettings
from pipeline.core.journal import Kind
from pipeline.core.names import TaskId, TopicPartition
from pipeline.declarations import Resource
from pipeline.errors import (
    AbortableError,
    DamagedStateError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RetriableError,
    SupersededError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Pending, Record
from pipeline.runtime.genesis import ensure_genesis
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.journal import read_entries
from pipeline.runtime.plan import plan_groups
from pipeline.runtime.restore import Restored, restore
from pipeline.runtime.task import Task
from pipeline.runtime.upkeep import Upkeep
from pipeline.runtime.watchdog import AtWork
from pipeline.runtime.world import World

__all__ = ["Progress", "Worker"]

# A fenced task waits longer than an acquire takes before it looks who fenced it.
FENCED_WAIT_S = (1.5, 3.0)
MAX_FENCES = 3
UNREACHABLE_WAIT_S = (0.5, 1.5)
_RESTORE_AGAIN = (UnreachableError, UnknownOutcomeError, AbortableError, RetriableError)


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts since the worker started."""

    records: int
    outputs: int
    commits: int
    skipped: int
    dead_lettered: int
    live: int
    restoring: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Damage:
    """A local state that cannot be read, and what closes it, when that is still under way."""

    reason: str
    closed: Pending[None] | None


class Worker:
    """Runs every task of an app. `start`, then `step` until `stop`, then `close`."""

    def __init__(
        self, app: App, world: World, settings: WorkerSettings, groups: Sequence[Group] | None = None
    ) -> None:
        self._app = app
        self._groups = list(groups) if groups is not None else app.groups
        self._world = world
        self._settings = settings
        self._runs: list[GroupRun] = []
        self._restoring: dict[TaskId, Pending[Restored]] = {}
        self._resources: dict[Resource[Any], Any] = {}
        self._upkeep = Upkeep(self._runs, world, settings)
        self._quiet = False
        self._stopping = False
        self._ended = Counter[str]()
        self._fences: dict[TaskId, int] = {}
        self._damaged: set[TaskId] = set()
        self.failures: dict[TaskId, PipelineError] = {}

    def start(self) -> None:
        """Check the app against the cluster, make sure of genesis, and begin to restore every task.

        Raises ConfigError, FatalTaskError (a group lost its journal), UnreachableError.
        """
        # First of all: a start that must fail for that reason would fence the worker that is well.
        self._world.stores.claim(self._app.app_name)
        plans, self._senders = plan_groups(self._app, self._groups, self._world)
        for plan in plans:
            ensure_genesis(
                plan.id,
                plan.partitions,
                plan.identity,
                self._settings.replication_factor,
                largest_dead_letter=plan.largest_dead_letter,
                world=self._world,
            )
        for plan in plans:
            run = GroupRun(plan, self._world.sources.open(plan.id.consumer_group))
            self._runs.append(run)
            for task in plan.tasks:
                self._begin_restore(run, task, wait_s=0.0)

    def step(self) -> bool:
        """One turn: take restored tasks live, poll, process, seal, retire. True when anything moved."""
        moved = self._take_live()
        timeout_s = (
            0.0 if moved or not self._quiet else self._settings.poll_timeout_ms / 1000 / len(self._runs)
        )
        for run in self._runs:
            moved |= self._poll(run, timeout_s)
            for task in list(run.tasks.values()):
                moved |= self._advance(run, task)
            run.balance(2 * self._settings.max_poll_records)
        for run, task_id, error in self._upkeep.turn():
            self._react(run, task_id, error)
        self._quiet = not moved
        return moved

    @property
    def finished(self) -> bool:
        """No task is live or being restored: each has failed."""
        return not self._restoring and not any(run.tasks for run in self._runs)

    @property
    def idle(self) -> bool:
        """Nothing is being restored, open or under way (input may be waiting)."""
        return not self._restoring and all(task.idle for run in self._runs for task in run.tasks.values())

    @property
    def world(self) -> World:
        """The ports that it runs on."""
        return self._world

    @property
    def at_work(self) -> AtWork | None:
        """The record that a handler is at; None outside of handlers. For a watchdog on another thread."""
        tasks = [task for run in list(self._runs) for task in list(run.tasks.values())]
        return next((at for task in tasks if (at := task.at_work) is not None), None)

    def stop(self) -> None:
        """Commit what is open and leave. Raises nothing: what cannot be committed is left to the next start."""
        self._stopping = True
        for run in self._runs:
            for task in list(run.tasks.values()):
                task.stop_waiting()
                try:
                    task.wait()
                    while not task.idle:
                        task.advance(seal=True)
                        task.wait()
                    if task.poison is not None:
                        raise task.poison
                except PipelineError as error:
                    self._fail(run, task.id, error)
            run.mirror()

    def close(self) -> None:
        """Release every client and store. Call after `stop`, or instead of it to leave at once."""
        self._stopping = True
        for run in self._runs:
            for partition in list(run.tasks):
                run.tasks.pop(partition).close()
        for pending in self._restoring.values():
            try:
                pending.result().publisher.close()
            except PipelineError as error:
                self._world.log.info("restore_ended", reason=error.message)
        self._restoring.clear()
        for run in self._runs:
            run.source.close()
        for resource in self._resources.values():
            if callable(getattr(resource, "close", None)):
                resource.close()
        self._resources.clear()
        self._world.executor.close()
        self._world.stores.release(self._app.app_name)

    def progress(self) -> Progress:
        """Counts for people and metrics."""
        live = [task for run in self._runs for task in run.tasks.values()]
        totals = sum(map(_counts, live), Counter(self._ended))
        return Progress(
            records=totals["records"],
            outputs=totals["outputs"],
            commits=totals["commits"],
            skipped=totals["skipped"],
            dead_lettered=totals["dead_lettered"],
            live=len(live),
            restoring=len(self._restoring),
            failed=len(self.failures),
        )

    def _begin_restore(
        self,
        run: GroupRun,
        task: TaskId,
        wait_s: float,
        fenced_after: Task | None = None,
        damage: _Damage | None = None,
    ) -> None:
        """Restore beside the processing thread. `fenced_after`: first look whether another worker has it.

        `damage`: first set the state aside, once it is closed.
        """
        plan, world, settings = run.plan, self._world, self._settings

        def start_position(topic: str) -> int:
            # Not from the source: it is being polled, and answers on this thread only between polls.
            reader = world.journals()
            try:
                bounds = reader.bounds(TopicPartition(topic, task.partition))
            finally:
                reader.close()
            return bounds.start if settings.start == "earliest" else bounds.stable_end

        def step() -> Restored:
            if wait_s:
                world.clock.sleep(wait_s)
            if fenced_after is not None:
                _check_not_taken(fenced_after, world)
            if damage is not None:
                if damage.closed is not None:
                    damage.closed.result()
                place = world.stores.set_aside(task)
                world.log.warning(
                    "local_state_set_aside", task=str(task), reason=damage.reason, kept_at=place
                )
            return restore(
                task, settings.worker_id, plan.identity, start_position, world, settings, plan.group.tables
            )

        self._restoring[task] = world.executor.submit(step)

    def _take_live(self) -> bool:
        moved = False
        for task_id in [task for task, pending in self._restoring.items() if pending.done()]:
            moved = True
            pending = self._restoring.pop(task_id)
            run = self._run_of(task_id)
            try:
                restored = pending.result()
            except PipelineError as error:
                self._react(run, task_id, error)
                continue
            task = Task(
                task_id, run.plan.group, restored, self._senders, self._resource, self._world, self._settings
            )
            run.add(task)
            self._fences.pop(task_id, None)
            self._world.log.info(
                "task_live",
                task=str(task_id),
                seq=restored.applied.seq,
                start=restored.start,
                entries_replayed=restored.replayed,
                restore_s=round(restored.seconds, 3),
            )
        return moved

    def _poll(self, run: GroupRun, timeout_s: float) -> bool:
        if not run.tasks:
            if timeout_s:
                self._world.clock.sleep(timeout_s)
            return False
        records, failures = run.source.poll(self._settings.max_poll_records, timeout_s)
        for partition, batch in run.batches(records):
            task = run.tasks.get(partition)
            if task is not None:
                self._offer(run, task, batch)
        for failure in failures:
            task = run.tasks.get(failure.partition.partition)
            if task is not None:
                self._react(run, task.id, self._upkeep.explain(run, task.id, failure.error))
        return bool(records)

    def _offer(self, run: GroupRun, task: Task, records: list[Record]) -> None:
        try:
            task.offer(records[0].topic(), records)
        except PipelineError as error:
            self._react(run, task.id, error)

    def _advance(self, run: GroupRun, task: Task) -> bool:
        try:
            moved = task.advance()
            if task.poison is not None and task.idle:
                raise task.poison
        except PipelineError as error:
            self._react(run, task.id, error)
            return True
        return moved

    def _react(self, run: GroupRun, task_id: TaskId, error: PipelineError) -> None:
        task = run.tasks.get(task_id.partition)
        closed = self._drop(run, task_id)
        if self._stopping:
            self._fail(run, task_id, error)
        elif isinstance(error, DamagedStateError) and task_id not in self._damaged:
            self._damaged.add(task_id)  # a disk that damages it again needs a person
            self._begin_restore(run, task_id, wait_s=0.0, damage=_Damage(error.message, closed))
        elif isinstance(error, SupersededError):
            self._world.log.warning("task_superseded", task=str(task_id), reason=error.message)
            self._begin_restore(run, task_id, wait_s=0.0)
        elif isinstance(error, FencedError):
            self._world.log.warning("task_fenced", task=str(task_id), reason=error.message)
            # A live task learns from the journal who has it; two workers that restore at once have no entry yet.
            self._fences[task_id] = self._fences.get(task_id, 0) + (task is None)
            if self._fences[task_id] > MAX_FENCES:
                self._fail(run, task_id, error)
            else:
                wait_s = self._world.random.uniform(*FENCED_WAIT_S)
                self._begin_restore(run, task_id, wait_s, fenced_after=task)
        elif isinstance(error, _RESTORE_AGAIN):
            self._world.log.warning("task_restarts", task=str(task_id), reason=error.message)
            self._begin_restore(run, task_id, wait_s=self._world.random.uniform(*UNREACHABLE_WAIT_S))
        else:
            self._fail(run, task_id, error)

    def _fail(self, run: GroupRun, task_id: TaskId, error: PipelineError) -> None:
        self._drop(run, task_id)
        self.failures[task_id] = error
        self._world.log.error("task_failed", task=str(task_id), reason=error.message, next=error.hint)

    def _drop(self, run: GroupRun, task_id: TaskId) -> Pending[None] | None:
        """Close the task, if it is live; what closes it, where that waits for a commit under way."""
        task = run.remove(task_id.partition)
        if task is None:
            return None
        self._ended.update(_counts(task))
        return task.close()

    def _run_of(self, task: TaskId) -> GroupRun:
        return next(run for run in self._runs if run.plan.id.group == task.group)

    def _resource(self, resource: Resource[Any]) -> Any:
        if resource not in self._resources:
            self._resources[resource] = resource.factory()
        return self._resources[resource]


def _counts(task: Task) -> Counter[str]:
    return Counter(
        records=task.records,
        outputs=task.outputs,
        commits=task.commits,
        skipped=task.rejected.skipped,
        dead_lettered=task.rejected.dead_lettered,
    )


def _check_not_taken(task: Task, world: World) -> None:
    """Raise when the journal has entries after the task's last: the client also reports a time-out as a fence."""
    reader = world.journals()
    try:
        end = reader.bounds(task.id.journal).stable_end
        found = list(read_entries(task.id, reader, task.applied.offset, end, None))
    finally:
        reader.close()
    others = [
        entry.entry
        for entry in found
        if entry.entry.seq > task.applied.seq and entry.entry.kind is Kind.ACQUIRE
    ]
    if others:
        raise FatalTaskError(
            f"task {task.id} was taken over by worker {others[-1].owner or '(unnamed)'} with entry {others[-1].seq}",
            hint="run one worker of this app; stop one of the two",
        )
