"""TestDriver: runs an app in memory, with the real runtime on in-memory ports, and can crash and restart it.

    driver = TestDriver(app)
    driver.send(flights, "AA", Flight(...))
    driver.run()
    assert driver.outputs(delays)[0].value.flights == 1

Deterministic: one thread, a manual clock, seeded randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import Table, Topic, declared_table, declared_topic
from pipeline.api.event import Event
from pipeline.api.sinks import Sink, Sqlite
from pipeline.api.table import table_prefix
from pipeline.app import App, declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import EVENT_ID_HEADER, GroupId, TaskId
from pipeline.errors import InputError, InvariantError
from pipeline.ops.dead_letters.letters import Choice
from pipeline.ops.dead_letters.replaying import Replayer
from pipeline.ports import Executor, Logger, Output, Step, TopicSpec
from pipeline.runtime.environment import Checkpoints, Environment
from pipeline.runtime.reset import plan_reset, reset_task, start_at
from pipeline.runtime.worker import Worker
from pipeline.testing.clock import ManualClock, SeededRandom
from pipeline.testing.executor import DeferredExecutor, InlineExecutor
from pipeline.testing.guard import guarded
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_checkpoints import MemoryCheckpointStore
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers, MemorySources
from pipeline.testing.memory_crashes import MemoryCrashLog
from pipeline.testing.memory_database import MemoryDatabases
from pipeline.testing.memory_members import MemoryMembers
from pipeline.testing.memory_store import MemoryStores

__all__ = ["SimulatedCrash", "TestDriver"]

K = TypeVar("K")
V = TypeVar("V")

MAX_STEPS = 100_000
_ANY_TIME = {"message.timestamp.after.max.ms": str(2**63 - 1)}
# A process takes time to start; of two of one worker id the younger one counts.
_START_S = 0.001


class SimulatedCrash(BaseException):
    """The process is gone, at a named step."""


class _CrashAt:
    """`ports.Steps` that ends the simulated process where it was told to."""

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


class TestDriver:
    """An app on an in-memory Kafka and disk. Topics that the app declares are created.

    They accept records of any time, since the clock is a test's own; `broker.configure` gives them other settings.

    `partitions`: of each topic. `seed`: of nonces, jitter and, with `deferred`, of the order in which commits
    and restores run beside the processing. `settings`: the worker's, for its intervals and limits; with a
    `checkpoint_store` that is not empty, whatever it says, checkpoints are made in memory. `databases`: of sinks;
    default: in memory, empty, and this driver's alone, whatever the sinks name. `MemoryDatabases(real=True)` opens the
    databases and files that they name.
    """

    __test__ = False

    def __init__(
        self,
        app: App,
        *,
        partitions: int = 1,
        seed: int = 0,
        deferred: bool = False,
        settings: WorkerSettings | None = None,
        databases: MemoryDatabases | None = None,
    ) -> None:
        self.app = app
        self.databases = databases if databases is not None else MemoryDatabases()
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
        self._partitions = partitions
        self._logged = structlog.testing.CapturingLogger()
        self._log: Logger = structlog.wrap_logger(self._logged, processors=[_as_fields])
        self._create_topics()

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        event_id: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Produce an input record, placed by its key as Kafka does unless `partition` is given."""
        if event_id is not None:
            headers = [*headers, (EVENT_ID_HEADER, event_id)]
        declared = declared_topic(topic)
        self.send_raw(
            topic,
            declared.key.encode(key),
            declared.value.encode(value),
            timestamp_ms=timestamp_ms,
            headers=headers,
            partition=partition,
        )

    def send_raw(
        self,
        topic: Topic[Any, Any],
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str | bytes, bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        """Produce bytes as they are, also such as the topic's type does not allow.

        A header name of bytes is written as it is: other clients write names that are not valid UTF-8.
        """
        when = self.clock.wall_ms() if timestamp_ms is None else timestamp_ms
        raw: Any = headers
        self.broker.produce(Output(topic.name, key, value, when, raw), partition=partition)

    def run(self) -> None:
        """Start the worker if none runs, and process until nothing is left to do.

        Ends early, with `crashed` set, when a step that `crash_at` named is reached. Raises the first failure
        of a task, as `pipeline worker` would end with it.
        """
        try:
            worker = self._running()
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
        for failure in [worker.displaced, *worker.failures.values()]:
            if failure is not None:
                raise failure

    def step(self) -> bool:
        """One turn of the worker without letting time pass: processed records stay open. True when it moved.

        Ends early, with `crashed` set, when a step that `crash_at` named is reached.
        """
        try:
            return self._running().step()
        except SimulatedCrash:
            self.crash()
            return True

    def crash(self) -> None:
        """End the process as SIGKILL does: what is not committed is gone, what is on disk stays."""
        if isinstance(self._executor, DeferredExecutor):
            self._executor.drop()
        self._worker = None
        self.stores.crash()
        self.databases.crash()
        self.crashed = True

    def crash_at(self, step: Step, *, nth: int = 1) -> None:
        """Let the process end at the `nth` time from now that `step` is reached."""
        self._steps.armed[step] = nth

    def restart(self, *, empty_disk: bool = False, app: App | None = None) -> None:
        """Start a new process, of another version of the app if given; `run` makes it work.

        `empty_disk`: the local state is gone, too.
        """
        if self._worker is not None:
            self.crash()
        if empty_disk:
            self.stores, self.crash_log = MemoryStores(), MemoryCrashLog()
        if app is not None:
            self.app = app
            self._create_topics()
        self.crashed = False
        self.clock.advance(_START_S)

    def stop(self) -> None:
        """Stop the worker as SIGTERM does: commit what is open and leave. Raises the first failure.

        Ends early, with `crashed` set, when a step that `crash_at` named is reached.
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
        for failure in [worker.displaced, *worker.failures.values()]:
            if failure is not None:
                raise failure

    def reset(self, *start: str, group: str = "main", partition: int | None = None) -> None:
        """What `pipeline reset` does, to all tasks of a group or one; a worker that runs goes on from there.

        `start`: as `--from` takes it, `[TOPIC=]earliest|latest|OFFSET|TIME`; default: earliest.
        """
        groups = [found for found in self._declared.groups if found.name == group]
        environment = self._environment()
        for task in list(
            plan_reset(self._declared, groups, partition, start_at(start or ("earliest",)), environment)
        ):
            reset_task(task, "reset", environment, self.settings)
        self.clock.advance(self.settings.check_interval_s)  # an idle worker looks for it this often

    def recreate(self, topic: Topic[Any, Any]) -> None:
        """Delete a topic and create it again, empty, with as many partitions."""
        info = self.broker.describe(topic.name)
        partitions = info.partitions if info is not None else 1
        self.broker.delete(topic.name)
        self.broker.create(TopicSpec(topic.name, partitions))

    def outputs(self, topic: Topic[K, V]) -> list[Event[K, V]]:
        """Committed records of a topic, partition by partition, in order."""
        declared = declared_topic(topic)
        decode_key, read_value = declared.key.decode, declared.value.read
        return [
            Event(decode_key(record.key()), read_value(record), record)
            for record in self.broker.records(topic.name)
        ]

    def dead_letters(self, group: str = "main") -> list[Event[bytes | None, bytes | None]]:
        """Committed dead letters of a group, as bytes."""
        name = GroupId(self.app.name, group).dead_letter_topic
        if self.broker.describe(name) is None:
            return []
        return [Event(record.key(), record.value(), record) for record in self.broker.records(name)]

    def replay_dead_letters(
        self, group: str = "main", *, again: bool = False, error: str = "", partition: int | None = None
    ) -> int:
        """What `pipeline deadletters replay` does; how many were replayed. `run` makes the worker handle them.

        `again`: also those that were replayed before. `error`: only those with this in the error's text.
        Raises InputError for a letter that cannot be replayed, when the others are.
        """
        found = next(g for g in self._declared.groups if g.name == group)
        replayer = Replayer(found, self._environment(), self.settings.retry_backoff_ms, again=again)
        replayed = replayer.run(Choice(partition=partition, error=error))
        for refused in replayed.refused:
            raise InputError(f"dead letter {refused.letter.name} cannot be replayed: {refused.reason}")
        return replayed.letters

    def table(self, table: Table[K, V]) -> dict[K, V]:
        """The applied rows of a table over all tasks. Keys present in several tasks: the last one's."""
        result: dict[K, V] = {}
        for rows in self.table_by_partition(table).values():
            result.update(rows)
        return result

    def table_by_partition(self, table: Table[K, V]) -> dict[int, dict[K, V]]:
        """The applied rows of a table, task by task."""
        declared = declared_table(table)
        prefix = table_prefix(table.name)
        skip = len(prefix)
        result: dict[int, dict[K, V]] = {}
        for task in self._tasks(table.group):
            rows = self.stores.contents(task)
            result[task.partition] = {
                declared.key.decode(key[skip:]): declared.value.decode(value)
                for key, value in sorted(rows.items())
                if key.startswith(prefix)
            }
        return result

    def rows(self, sink: Sink[Any, Any]) -> list[dict[str, Any]]:
        """The committed rows of a sink's table in memory."""
        return self.databases.rows(sink)

    def sql(
        self, sink: Sqlite[Any, Any], statement: str, parameters: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement in what stands for a SQLite sink's file: to create its tables, or to look into them."""
        return self.databases.sql(sink, statement, parameters)

    def said(self, event: str) -> list[dict[str, Any]]:
        """What the workers have logged under this name, oldest first."""
        return [call.kwargs for call in self._logged.calls if call.kwargs.get("event") == event]

    @property
    def _declared(self) -> DeclaredApp:
        return declared_app(self.app)

    def _tasks(self, group: str) -> list[TaskId]:
        found = next(g for g in self._declared.groups if g.name == group)
        info = self.broker.describe(found.inputs[0].name)
        count = info.partitions if info is not None else 0
        return [TaskId(self.app.name, group, partition) for partition in range(count)]

    def _running(self) -> Worker:
        if self.crashed:
            raise InvariantError("the worker has crashed: restart() it first")
        if self._worker is None:
            self._executor = DeferredExecutor(self._seed) if self._deferred else InlineExecutor()
            worker = Worker(
                self._declared, self._environment(), replace(self.settings), guarded(self._declared.groups)
            )
            worker.start()
            self._worker = worker
        return self._worker

    def _create_topics(self) -> None:
        for topic in self._declared.topics.values():
            self.broker.create(TopicSpec(topic.name, self._partitions))

    def _environment(self) -> Environment:
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
        )


def _as_fields(_logger: Any, _method: str, fields: Any) -> Any:
    return ((), dict(fields))
