"""The backend of a sink group: its positions in a database. See `pipeline/core/sink_positions.py`.

`begin`, at the first start of a group:

    1 search for evidence that the group existed before
    2 create the positions table, and check the sinks' tables
    3 create the rows of all tasks in one transaction: a crash leaves all of them or none
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.notes import Owner
from pipeline.core.sink_positions import Hold, InputNow, PositionRow, plan_positions, rows_by_input
from pipeline.databases.sql import POSITIONS
from pipeline.errors import (
    ConfigError,
    PipelineError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
)
from pipeline.ports import Executor, Pending, Step, error_fields
from pipeline.ports.databases import SinkSession
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.runtime.environment import Environment
from pipeline.runtime.live_task import LiveTask, RestoredTask, RestoreRequest, TaskPosition
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.sinks.rows import Outlet, RowMaker
from pipeline.runtime.sinks.sessions import Health, Sessions
from pipeline.runtime.sinks.task import SinkRun, SinkTask
from pipeline.runtime.sinks.writer import SinkWriter, claim

__all__ = ["SinkBackend", "inputs_now", "rows_of", "sessions_of", "start_rows"]

T = TypeVar("T")

FENCED_WAIT_S = (1.0, 2.0)
BEGIN_ATTEMPTS = 5
AGAIN_S = (0.1, 0.5)


class SinkBackend:
    """`TaskBackend` of one sink group."""

    def __init__(
        self, plan: GroupPlan, environment: Environment, settings: WorkerSettings, commit_rate: CommitRate
    ) -> None:
        self._plan = plan
        self._environment = environment
        self._settings = settings
        self._commit_rate = commit_rate
        self._sessions = sessions_of(plan, environment)
        self._executor: Executor = (
            environment.sink_executor() if environment.sink_executor else environment.executor
        )
        self._health = Health(plan.group.sinks[0].sink.database, environment)
        self._outlets: Sequence[Outlet] = ()

    @property
    def journal_id(self) -> str:
        """Empty: the group has no journal."""
        return ""

    def begin(self) -> None:
        """Check the database, and ensure that each task has its rows."""
        for left in reversed(range(BEGIN_ATTEMPTS)):
            try:
                self._begin()
            except (RetriableError, UnknownOutcomeError) as error:
                if not left:
                    raise
                self._environment.log.warning(
                    "positions_outcome_unknown",
                    app=self._plan.id.app,
                    group=self._plan.id.group,
                    **error_fields(error),
                )
                self._environment.clock.sleep(self._environment.random.uniform(*AGAIN_S))
            else:
                return

    def begin_later(self) -> Pending[None]:
        return self._executor.submit(self.begin)

    def _begin(self) -> None:
        plan, environment = self._plan, self._environment
        mirror = plan.id.consumer_group
        traces = (
            [f"committed offsets of consumer group {mirror}"] if environment.cluster.committed(mirror) else []
        )  # 1
        with self._sessions.one() as session:
            session.prepare()  # 2
            self._outlets = [
                Outlet(bound.topic, RowMaker(bound.sink, session), bound.on_error)
                for bound in plan.group.sinks
            ]
            where = f"group {plan.id.app}/{plan.id.group}"
            rows = rows_of(plan, session)
            _, missing = plan_positions(where, rows, inputs_now(plan), traces)
            if not missing:
                return
            session.begin()
            session.put(plan.id, start_rows(plan, missing, self._settings.start, environment), keep=True)  # 3
            session.commit()
        environment.steps.reached(Step.SINK_AFTER_POSITIONS, plan.tasks[0])
        environment.log.info("positions_written", app=plan.id.app, group=plan.id.group, rows=len(missing))

    def begin_restore(self, request: RestoreRequest) -> Pending[RestoredTask]:
        """Claim the task, once the request's conditions are met."""
        inputs = inputs_now(self._plan)

        def step() -> RestoredTask:
            began_s = self._environment.clock.monotonic_s()
            with self._environment.tracer.span("restore", request.task) as span:
                hold = claim(
                    request.task,
                    self._plan.task_count,
                    self._settings.worker_id,
                    request.process,
                    request.noted,
                    inputs,
                    self._sessions,
                    self._environment,
                )
                span.note(seq=hold.seq)
            return _Claimed(self, hold, self._environment.clock.monotonic_s() - began_s)

        return self._later(request.wait_s, step, request.closing)

    def find_owner(self, task: TaskId, place: TaskPosition | None) -> Pending[Owner | None]:
        """The current owner of the task, if it acquired the task after `place`."""
        seq = place.seq if place is not None else 0

        def step() -> Owner | None:
            with self._sessions.one() as session:
                rows = rows_by_input(session.rows(task.group_id), self._plan.names_of(task.number))
            newest = max(rows.values(), key=lambda row: row.epoch, default=None)
            if newest is None or newest.epoch <= seq or not newest.process:
                return None
            return Owner(newest.epoch, newest.owner, newest.process)

        return self._later(self._environment.random.uniform(*FENCED_WAIT_S), step)

    def begin_check(self, places: Mapping[TaskId, TaskPosition]) -> Pending[set[TaskId]]:
        """Which idle tasks were fenced. They hold no state, but must not count as live. It also detects a reset."""
        seqs = {task.number: (task, place.seq) for task, place in places.items()}
        task_of = self._plan.task_of

        def step() -> set[TaskId]:
            with self._sessions.one() as session:
                newest = {
                    task_of(row.partition): row.epoch
                    for row in sorted(session.rows(self._plan.id), key=_epoch)
                }
            return {task for number, (task, seq) in seqs.items() if newest.get(number, 0) > seq}

        return self._executor.submit(step)

    def live(self, hold: Hold) -> LiveTask:
        """A claimed task."""
        self.answered()
        run = SinkRun(
            self._outlets, self._health, self._executor, self._environment, self._settings, self._commit_rate
        )
        return SinkTask(SinkWriter(hold, self._sessions, self._environment), run)

    def unanswered(self, error: PipelineError) -> bool:
        if not isinstance(error, SinkUnreachableError):
            return False
        self._health.unanswered(error)
        return True

    def answered(self) -> None:
        self._health.answered()

    def poll_problem(self) -> str | None:
        return self._health.poll_problem()

    def close(self) -> None:
        if self._environment.sink_executor is not None:
            self._executor.close()
        self._sessions.close()

    def _later(
        self, wait_s: float, step: Callable[[], T], closing: Pending[None] | None = None
    ) -> Pending[T]:
        """A step that waits without a thread, because many tasks may wait for an unreachable database."""
        if not wait_s and closing is None:
            return self._executor.submit(step)
        return _Later(
            self._environment.clock.monotonic_s() + wait_s, step, closing, self._executor, self._environment
        )


def sessions_of(plan: GroupPlan, environment: Environment) -> Sessions:
    """All sinks of a group share one database."""
    sink = plan.group.sinks[0].sink
    return Sessions(lambda: environment.databases.open(sink, plan.id.app))


def rows_of(plan: GroupPlan, session: SinkSession) -> list[PositionRow]:
    """All rows of a group. Raises ConfigError if they are in another schema than before."""
    rows = session.rows(plan.id)
    if not rows and (others := session.elsewhere(plan.id, plan.identity.cluster_id)):
        raise ConfigError(
            f"group {plan.id.app}/{plan.id.group} has its positions in {others[0]}, and the connection's search_path "
            "leads to another schema",
            hint="set search_path as it was (the DSN, ALTER ROLE, ALTER DATABASE); or move that table with ALTER TABLE "
            "... SET SCHEMA; or delete the group's rows there to start over on purpose",
        )
    return rows


def inputs_now(plan: GroupPlan) -> dict[str, InputNow]:
    """The group's inputs by topic."""
    return {
        topic: InputNow(facts.topic_id, plan.identity.cluster_id, facts.partitions)
        for topic, facts in plan.identity.inputs.items()
    }


def start_rows(
    plan: GroupPlan, places: Sequence[TopicPartition], start: str, environment: Environment
) -> list[PositionRow]:
    """The first rows, without an owner, at `start`: earliest or latest."""
    inputs = inputs_now(plan)
    with closing(environment.journals()) as reader:
        if start == "earliest":
            positions = dict(reader.starts(places))
        else:
            positions = dict(reader.highest_ends(places))
    return [
        PositionRow(place.topic, place.partition, positions[place], 0, "", "", *inputs[place.topic])
        for place in places
    ]


def _epoch(row: PositionRow) -> int:
    return row.epoch


@dataclass(frozen=True, slots=True)
class _Claimed:
    """`RestoredTask`."""

    backend: SinkBackend
    applied: Hold
    seconds: float
    proof_s: float = 0.0  # the lock on the rows of positions is the proof
    copy_s: float = 0.0  # there are no checkpoints
    work: None = None
    start: str = POSITIONS
    replayed: int = 0

    def live(self) -> LiveTask:
        return self.backend.live(self.applied)

    def close(self) -> None:
        """Nothing to close: the next owner raises the epoch."""


class _Later(Pending[T]):
    """A step that starts once it is due. The calls of `done` check this."""

    def __init__(
        self,
        due_s: float,
        step: Callable[[], T],
        after: Pending[None] | None,
        executor: Executor,
        environment: Environment,
    ) -> None:
        self._due_s = due_s
        self._step = step
        self._after = after
        self._executor = executor
        self._clock = environment.clock
        self._begun: Pending[T] | None = None

    def done(self) -> bool:
        if self._begun is None:
            waits = self._after is not None and not self._after.done()
            if waits or self._clock.monotonic_s() < self._due_s:
                return False
            self._begun = self._executor.submit(self._step)
        return self._begun.done()

    def result(self) -> T:
        if self._begun is None:
            raise SinkUnreachableError("the step was given up before it began")
        return self._begun.result()
