"""`SimulatedProcess`: the process of a worker in memory. It runs, stops, crashes and restarts.

The worker is the real one. Kafka, disk, databases, time and executor are in memory. What is in memory but stands for
a disk or a server survives a crash, as the real one does.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import structlog

from pipeline.api.app import DeclaredApp
from pipeline.app import App, declared_app
from pipeline.config import WorkerSettings
from pipeline.core.event_time import input_check_interval_s
from pipeline.core.names import TaskId
from pipeline.core.suggestions import closest
from pipeline.errors import ConfigError, InputError, InvariantError, PipelineError
from pipeline.ports import Executor, Logger, NoTracer, Step, TopicSpec, Tracer
from pipeline.runtime.environment import Checkpoints, Environment
from pipeline.runtime.live_task import LiveTask
from pipeline.runtime.metrics.meter import Meter
from pipeline.runtime.worker import Worker
from pipeline.testing.databases import DriverDatabases
from pipeline.testing.event_loop import ManualEventLoop
from pipeline.testing.guard import guarded
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers, MemorySources
from pipeline.testing.memory_members import MemoryMembers
from pipeline.testing.memory_store import MemoryCheckpointStore, MemoryCrashLog, MemoryStores
from pipeline.testing.system import DeferredExecutor, InlineExecutor, ManualClock, SeededRandom

__all__ = ["SimulatedCrash", "SimulatedProcess"]

MAX_STEPS = 100_000
_ANY_TIME = {"message.timestamp.after.max.ms": str(2**63 - 1)}
# Starting a process takes time. Of two processes with one worker id, the one that started later counts.
_START_S = 0.001


class SimulatedCrash(BaseException):
    """Ends the simulated process at a step. `TestDriver` catches it; a test sees `driver.crashed`."""


class _CrashAt:
    """`ports.Steps` that ends the simulated process at chosen steps."""

    def __init__(self) -> None:
        self.armed: dict[Step, int] = {}
        self.seen: list[Step] = []

    def reached(self, step: Step, task: TaskId) -> None:
        self.seen.append(step)
        if step in self.armed:
            self.armed[step] -= 1
            if self.armed[step] == 0:
                del self.armed[step]
                raise SimulatedCrash(f"{task} at {step.value}")


class SimulatedProcess:
    """The part of `TestDriver` that runs the app: one worker process, with everything around it in memory."""

    def __init__(
        self,
        app: App,
        *,
        partitions: int | None = None,
        seed: int = 0,
        deferred: bool = False,
        settings: WorkerSettings | None = None,
        databases: DriverDatabases | None = None,
        tasks: int | None = None,
    ) -> None:
        self.app = app
        self._tasks = tasks
        self.databases = databases if databases is not None else DriverDatabases()
        self.clock = ManualClock()
        self.broker = MemoryBroker(self.clock.wall_ms, defaults=_ANY_TIME)
        self.stores = MemoryStores()
        self.checkpoints = MemoryCheckpointStore(self.clock.wall_ms)
        self.settings = settings if settings is not None else WorkerSettings(worker_id="test")
        self.crash_log = MemoryCrashLog()
        self.crashed = False
        self._random = SeededRandom(seed)
        self._seed = seed
        self._deferred = deferred
        self._steps = _CrashAt()
        self._worker: Worker | None = None
        self._executor: Executor = InlineExecutor()
        self._event_loop: ManualEventLoop | None = None  # of async handlers
        self._meter: Meter | None = None  # tests of metrics set it
        self._tracer: Tracer = NoTracer()  # tests of traces set it
        self._partitions = max(1, self._most_tasks) if partitions is None else partitions
        self._logged = structlog.testing.CapturingLogger()
        # Of all levels, however the program of the test has configured structlog.
        self._log: Logger = structlog.wrap_logger(
            self._logged,
            processors=[_as_fields],
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        )
        self.create_topics()

    def run(self) -> None:
        """Start the worker if none runs, and process until nothing is left to do. Time passes meanwhile.

        If a step that `crash_at` named is reached, it returns with `crashed` set.

        Raises:
            PipelineError: The first failure of a task, or of the worker's start.
            InvariantError: The worker has crashed and was not restarted, or the app does not become idle.

        Example:
            ```python
            driver.send(flights, "AA", Flight("AA", 12))
            driver.run()
            ```
        """
        try:
            worker = self.worker
            quiet = 0
            for _ in range(MAX_STEPS):
                moved = worker.step()
                if isinstance(self._executor, DeferredExecutor):
                    moved |= self._executor.run_one()
                # What is open is committed when the interval has passed.
                self.clock.advance(self.settings.commit_interval_ms / 1000)
                quiet = 0 if moved or not worker.idle else quiet + 1
                if quiet > 1:
                    break
            else:
                raise InvariantError(
                    f"the app is still busy after {MAX_STEPS} steps (do its handlers feed themselves?)"
                )
        except SimulatedCrash:
            self.crash()
            return
        _raise_failures(worker)

    def advance(self, seconds: float) -> None:
        """Let time pass while the worker runs, as it does without input: idle inputs let windows close.

        The driver's clock and the event clocks move. `run` does not wait for windows.

        Args:
            seconds: How much time, at least.

        Raises:
            PipelineError: As `run`.

        Example:
            ```python
            driver.send(orders, "ann", Order(5))
            driver.advance(3600 + 120)  # the input is idle for a moment, and then the hour is over
            assert [event.value for event in driver.outputs(totals)] == [5]
            ```
        """
        until_s = self.clock.monotonic_s() + seconds
        interval_s = input_check_interval_s(self.settings.input_idle_s)
        self.run()
        while not self.crashed and (left_s := until_s - self.clock.monotonic_s()) > 0:
            self.clock.advance(min(interval_s, left_s))
            self.run()

    def step(self) -> bool:
        """Run one iteration of the worker, starting it if none runs. No time passes, so processed records stay open.

        If a step that `crash_at` named is reached, it returns with `crashed` set.

        Returns:
            Whether anything was done.

        Raises:
            PipelineError: The worker cannot start.

        Example:
            ```python
            while driver.step():
                pass
            ```
        """
        try:
            return self.worker.step()
        except SimulatedCrash:
            self.crash()
            return True

    def crash(self) -> None:
        """End the process as SIGKILL does: what is not committed is lost, what is on disk remains.

        Example:
            ```python
            driver.crash()
            driver.restart()
            ```
        """
        if isinstance(self._executor, DeferredExecutor):
            self._executor.drop()
        if self._event_loop is not None:
            self._event_loop.abandon()
        self._worker = None
        self.stores.crash()
        self.databases.crash()
        self.crashed = True

    def crash_at(self, step: Step, *, nth: int = 1) -> None:
        """End the process when a step is reached.

        It applies until the next `restart`, which may be after several calls of `run`. Check `driver.crashed` after
        the run: a step that the app does not reach, such as that of a sink in an app without one, ends nothing.

        Args:
            step: The step.
            nth: The number of the occurrence from now on, from 1.

        Raises:
            InputError: `step` is not a `Step`, or `nth` is less than 1.

        Example:
            ```python
            driver.crash_at(Step.AFTER_COMMIT)
            ```
        """
        if not isinstance(step, Step):
            raise _not_a_step(step)
        if nth < 1:
            raise InputError(f"crash_at: nth is {nth}, and the first occurrence is 1")
        self._steps.armed[step] = nth

    @property
    def armed(self) -> dict[Step, int]:
        """The steps of `crash_at` that were not reached, with the number of occurrences that are missing."""
        return dict(self._steps.armed)

    def clear_crashes(self) -> None:
        """Forget every `crash_at` whose step was not reached, without a restart.

        Example:
            ```python
            driver.crash_at(Step.AFTER_COMMIT, nth=5)
            driver.run()
            driver.clear_crashes()
            ```
        """
        self._steps.armed.clear()

    def restart(self, *, empty_disk: bool = False, app: App | None = None) -> None:
        """Replace the process by a new one. `run` starts its worker.

        It forgets every `crash_at` whose step was not reached, because that named a step of the old process. To end
        the new process, call `crash_at` after `restart`.

        Args:
            empty_disk: The local state is lost.
            app: Another version of the app.

        Example:
            ```python
            driver.restart(empty_disk=True)
            ```
        """
        if self._worker is not None:
            self.crash()
        if empty_disk:
            self.stores, self.crash_log = MemoryStores(), MemoryCrashLog()
        if app is not None:
            self.app = app
            self.create_topics()
        self._steps.armed.clear()
        self.crashed = False
        self.clock.advance(_START_S)

    def stop(self) -> None:
        """Stop the worker as SIGTERM does: it commits what is open and leaves.

        If a step that `crash_at` named is reached, it returns with `crashed` set.

        Raises:
            PipelineError: The first failure of a task.

        Example:
            ```python
            driver.stop()
            ```
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            worker.stop()
            worker.close()
        except SimulatedCrash:
            self.crash()
            return
        _raise_failures(worker)

    def run_deferred(self) -> bool:
        """Run one commit or restore that waits. With `deferred` only; `run` does it by itself.

        Returns:
            Whether one waited.

        Example:
            ```python
            driver.step()
            driver.run_deferred()
            ```
        """
        return isinstance(self._executor, DeferredExecutor) and self._executor.run_one()

    @property
    def failures(self) -> dict[tuple[str, int], PipelineError]:
        """The errors of the tasks that have stopped, by group and number of the task."""
        found = self._worker.failures if self._worker is not None else {}
        return {(task.group, task.number): error for task, error in found.items()}

    def create_topics(self) -> None:
        """Create the topics that the app has declared since, as `restart(app=...)` does.

        Example:
            ```python
            more = app.topic("more", key=str, value=int)
            driver.create_topics()
            ```
        """
        for topic in self._declared.topics.values():
            self.broker.create(TopicSpec(topic.name, self._partitions))

    @property
    def worker(self) -> Worker:
        """The worker, which is started if none runs: an internal object, for tests of the runtime itself."""
        if self.crashed:
            raise InvariantError("the worker has crashed: restart() it first")
        if self._worker is None:
            self._executor = DeferredExecutor(self._seed) if self._deferred else InlineExecutor()
            worker = Worker(
                self._declared, self.environment(), replace(self.settings), guarded(self._declared.groups)
            )
            try:
                worker.start()
            except ConfigError as error:
                most, chosen = self._most_tasks, self._partitions
                if most <= chosen:
                    raise
                hint = f"TestDriver(app, partitions={most}), or TestDriver(app, partitions={chosen}, tasks={chosen})"
                raise ConfigError(error.message, hint=hint) from error
            self._worker = worker
        return self._worker

    def task(self, group: str = "main", partition: int = 0) -> LiveTask:
        """A task that the worker runs: an internal object, for tests of the runtime itself.

        Args:
            group: The group.
            partition: A partition that the task owns.

        Returns:
            The task.

        Raises:
            InputError: The worker does not run this task.

        Example:
            ```python
            assert driver.task("main", 0).idle
            ```
        """
        for run in self.worker.runs:
            number = run.plan.task_of(partition)
            if run.plan.id.group == group and partition < run.plan.partitions and number in run.tasks:
                return run.tasks[number]
        raise InputError(
            f"the worker of app {self._declared.name} runs no task of partition {partition} of group {group}"
        )

    def environment(self) -> Environment:
        """What the worker and the commands of the pipeline get of Kafka, disk and time, for tests of these.

        Returns:
            An internal object, on the driver's in-memory parts.

        Example:
            ```python
            assert driver.environment().clock is driver.clock
            ```
        """
        stored = self.settings.checkpoint_store
        return Environment(
            cluster=MemoryCluster(self.broker),
            sources=MemorySources(self.broker),
            producers=MemoryProducers(self.broker),
            members=MemoryMembers(self.broker, self.clock),
            journals=lambda: MemoryJournalReader(self.broker),
            stores=self.stores,
            clock=self.clock,
            random=self._random,
            executor=self._executor,
            log=self._log,
            steps=self._steps,
            checkpoints=Checkpoints(self.checkpoints, InlineExecutor()) if stored else None,
            databases=self.databases,
            crash_log=self.crash_log,
            meter=self._meter,
            tracer=self._tracer,
            event_loops=self._open_event_loop,
        )

    def _open_event_loop(self) -> ManualEventLoop:
        self._event_loop = ManualEventLoop(self.clock)
        return self._event_loop

    @property
    def _most_tasks(self) -> int:
        return max((group.tasks or 0 for group in self._declared.groups), default=0)

    @property
    def _declared(self) -> DeclaredApp:
        declared = declared_app(self.app)
        return declared if self._tasks is None else declared.with_tasks(self._tasks)


def _not_a_step(given: object) -> InputError:
    names = {name: f"Step.{step.name}" for step in Step for name in (step.name, step.value)}
    found = closest(str(given), names)
    suggestion = f"; did you mean {names[found]}?" if found is not None else ""
    return InputError(
        f"crash_at: {given!r} is not a Step{suggestion}", hint="import it: from pipeline.testing import Step"
    )


def _as_fields(_logger: Any, _method: str, fields: Any) -> Any:
    return ((), dict(fields))


def _raise_failures(worker: Worker) -> None:
    for failure in [worker.displaced, *worker.failures.values()]:
        if failure is not None:
            raise failure
