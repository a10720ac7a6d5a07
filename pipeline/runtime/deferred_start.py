"""Sink groups whose database was unreachable when the worker started: they start when it is reachable.

The first attempt is made when the worker starts, so that a wrong DSN, password, database or table is refused then, by
name. A database that does not answer is retried every 0.5 to 5 s on an executor, one step at a time. Until its group
has started, this worker acquires none of its tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.names import TaskId
from pipeline.errors import (
    ConfigError,
    PipelineError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Pending
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import TaskBackend

__all__ = ["DeferredStarts", "begin"]

FIRST_WAIT_S = 0.5
MAX_WAIT_S = 5.0
_AGAIN = (UnreachableError, UnknownOutcomeError, RetriableError)


def begin(backend: TaskBackend) -> SinkUnreachableError | None:
    """Start a group, or return why it must start later.

    Raises the other errors of `TaskBackend.begin`; ConfigError also for a database that refuses the login.
    """
    try:
        backend.begin()
    except SinkUnreachableError as error:
        if error.refused:
            raise ConfigError(error.message, hint=error.hint) from error
        return error
    return None


@dataclass(slots=True)
class _Late:
    run: GroupRun
    wait_s: float
    due_s: float
    step: Pending[None] | None = None


class DeferredStarts:
    """The groups that have not started yet. Processing thread only."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._late: list[_Late] = []

    def __contains__(self, run: object) -> bool:
        return any(late.run is run for late in self._late)

    def __bool__(self) -> bool:
        return bool(self._late)

    @property
    def tasks(self) -> list[TaskId]:
        """The tasks that this worker cannot acquire yet."""
        return [task for late in self._late for task in late.run.plan.tasks]

    def add(self, run: GroupRun, error: SinkUnreachableError) -> None:
        """Add a group whose first attempt failed with `error`."""
        self._late.append(_Late(run, FIRST_WAIT_S, 0.0))
        self._retry_later(self._late[-1], error)

    def turn(self) -> Sequence[tuple[GroupRun, PipelineError | None]]:
        """Do what is due. Returns the groups that have started, and those that cannot start, with the reason."""
        ended: list[tuple[GroupRun, PipelineError | None]] = []
        for late in list(self._late):
            if late.step is None:
                if self._environment.clock.monotonic_s() >= late.due_s:
                    late.step = late.run.backend.begin_later()
                continue
            if not late.step.done():
                continue
            step, late.step = late.step, None
            try:
                step.result()
            except _AGAIN as error:
                self._retry_later(late, error)
                continue
            except PipelineError as error:
                ended.append((late.run, error))
            else:
                late.run.backend.answered()
                ended.append((late.run, None))
            self._late.remove(late)
        return ended

    def _retry_later(self, late: _Late, error: PipelineError) -> None:
        late.run.backend.unanswered(error)
        wait_s = self._environment.random.uniform(late.wait_s / 2, late.wait_s)
        late.due_s = self._environment.clock.monotonic_s() + wait_s
        late.wait_s = min(MAX_WAIT_S, 2 * late.wait_s)
