"""The periodic work of a worker, other than processing.

It mirrors positions to the consumer group, checks that topics have not changed, moves the positions of idle tasks past
transaction markers, finds out which inputs are processed to their ends, closes the producers of idle tasks, and checks
whether an idle task was fenced. A task that commits notices a fence by itself. A task without input would otherwise
keep an outdated state until its next record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import (
    FatalTaskError,
    FencedError,
    OutOfRangeError,
    PipelineError,
    StaleReadError,
    UnreachableError,
)
from pipeline.ports import PartitionFailure, Pending, TopicInfo, error_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.idle_positions import IdlePositions
from pipeline.runtime.idle_producers import IdleProducers
from pipeline.runtime.input_checks import InputChecks
from pipeline.runtime.outage import Outage
from pipeline.runtime.plan import (
    GroupPlan,
    TopicChange,
    inputs_changed,
    journal_changed,
    outputs_changed,
)

__all__ = ["Maintenance"]


class Maintenance:
    """Called once per turn. It queries the cluster on the executor, so a slow answer delays nothing."""

    def __init__(self, runs: Sequence[GroupRun], environment: Environment, settings: WorkerSettings) -> None:
        self._runs = runs
        self._environment = environment
        self._settings = settings
        now = environment.clock.monotonic_s()
        self._next_check_s = now + settings.check_interval_s
        self._next_mirror_s = now + settings.mirror_interval_s
        self._check: Pending[dict[str, TopicInfo]] | None = None
        self._known: dict[str, TopicInfo] = {}  # as of the last check
        self._requested_s = now
        self._outage = Outage(environment.clock, environment.log)
        self._changes: dict[GroupRun, TopicChange | None] = {}  # ends of journals, at the last check
        self._idle_positions = IdlePositions(runs, environment)
        self._idle_producers = IdleProducers(runs, environment)
        self._input_checks = InputChecks(runs, environment, settings.input_idle_s)
        self._owner_checks: dict[GroupRun, tuple[Pending[set[TaskId]], dict[TaskId, int]]] = {}

    @property
    def kafka_unreachable_s(self) -> float:
        """How long Kafka has not answered; 0 if it answers."""
        return self._outage.seconds

    def turn(self) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        """Do what is due. Returns the live tasks that must stop, with the reason."""
        self._input_checks.turn()
        now = self._environment.clock.monotonic_s()
        if now >= self._next_mirror_s:
            self._next_mirror_s = now + self._settings.mirror_interval_s
            for run in self._runs:
                run.mirror()
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        if self._check is not None and not self._check.done():
            self._outage.unanswered(self._requested_s)
        elif self._check is not None:
            check, self._check = self._check, None
            try:
                found = self._judge(check.result())
                self._outage.answered()
            except UnreachableError as error:
                self._outage.unanswered(self._requested_s, error)
            except PipelineError as error:
                self._environment.log.info("topics_not_checked", **error_fields(error))
        if now >= self._next_check_s and self._check is None:
            self._next_check_s = now + self._settings.check_interval_s
            self._requested_s = now
            plans = [run.plan for run in self._runs]
            names = sorted({name for plan in plans for name in _watched(plan)})
            self._check = self._environment.executor.submit(lambda: self._described(names))
            self._begin_owner_checks()
            self._idle_positions.turn()
            self._idle_producers.turn()
        return found + self._taken_tasks()

    def _described(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics. A change that would stop a task must be confirmed by most brokers."""
        found = self._environment.cluster.describe(names)
        changed = [
            name
            for name in names
            if self._known.get(name, found.get(name)) != found.get(name) or name not in found
        ]
        if changed:
            for name in changed:
                found.pop(name, None)
            found |= self._environment.cluster.describe_by_most(changed)
        self._known = dict(found)
        return found

    def lost(self, run: GroupRun, task: TaskId) -> PipelineError | None:
        """Why no restore of the task can succeed, as of the last check; None if no reason is known."""
        change = self._changes.get(run)
        return None if change is None else _fatal(task, change)

    def begin_explanation(
        self, run: GroupRun, task: TaskId, failure: PartitionFailure, position: int
    ) -> Pending[PipelineError]:
        """Find out, on the executor, why a partition of a live task cannot be read from `position`."""
        return self._environment.executor.submit(lambda: self._explain(run, task, failure, position))

    def _explain(
        self, run: GroupRun, task: TaskId, failure: PartitionFailure, position: int
    ) -> PipelineError:
        """A position is out of range for one of three reasons.

        The topic was recreated; or the position is after the end, because the broker is no longer the leader or records
        were lost (a later check decides); or retention has deleted unprocessed records.
        """
        partition, error = failure.partition, failure.error
        changed: PipelineError | None = None
        try:
            changed = _error(
                run, task, self._environment.cluster.describe_by_most(sorted(set(_watched(run.plan))))
            )
        except PipelineError as unanswered:
            self._environment.log.info("topics_not_checked", **error_fields(unanswered))
        if changed is not None:
            return changed
        if not isinstance(error, OutOfRangeError) or self._starts_behind(partition, position):
            return error
        return StaleReadError(
            f"{partition}: the queried broker's end is below position {position}",
            hint="check the brokers: one may be a stale leader, or have lost records in an unclean election",
        )

    def _starts_behind(self, partition: TopicPartition, position: int) -> bool:
        """Whether unprocessed records were deleted; False if Kafka does not answer."""
        try:
            with closing(self._environment.journals()) as reader:
                return reader.bounds(partition).start > position
        except PipelineError:
            return False

    def _begin_owner_checks(self) -> None:
        for run in self._runs:
            idle = {task.id: task.applied for task in run.tasks.values() if task.idle}
            if idle and run not in self._owner_checks:
                seqs = {task: place.seq for task, place in idle.items()}
                self._owner_checks[run] = run.backend.begin_check(idle), seqs

    def _taken_tasks(self) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        for run, (check, seqs) in list(self._owner_checks.items()):
            if not check.done():
                continue
            del self._owner_checks[run]
            try:
                taken = check.result()
            except PipelineError as error:
                self._environment.log.info(
                    "owners_not_checked", app=run.plan.id.app, group=run.plan.id.group, **error_fields(error)
                )
                continue
            for task in list(run.tasks.values()):
                # A task that has committed since noticed a fence by itself.
                if task.id in taken and task.applied.seq == seqs[task.id]:
                    fenced = FencedError(
                        f"task {task.id}: another worker has taken it after entry {task.applied.seq}"
                    )
                    found.append((run, task.id, fenced))
        return found

    def _judge(self, now: dict[str, TopicInfo]) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        for run in self._runs:
            self._changes[run] = journal_changed(run.plan, run.backend.journal_id, now)
            for task in run.tasks.values():
                error = self.lost(run, task.id) or _error(run, task.id, now, task.written)
                if error is not None:
                    found.append((run, task.id, error))
        return found


def _error(
    run: GroupRun, task: TaskId, now: dict[str, TopicInfo], written: Sequence[str] = ()
) -> PipelineError | None:
    change = inputs_changed(run.plan, now) or outputs_changed(run.plan, written, now)
    return None if change is None else _fatal(task, change)


def _fatal(task: TaskId, change: TopicChange) -> FatalTaskError:
    return FatalTaskError(f"task {task}: {change.reason}", hint=change.hint)


def _watched(plan: GroupPlan) -> Iterator[str]:
    """The topics that a group requires, if it has them."""
    yield from plan.placed_by
    yield from plan.identity.inputs
    if not plan.group.sinks:
        yield plan.id.journal_topic
    if plan.largest_letter:
        yield plan.id.dead_letter_topic
