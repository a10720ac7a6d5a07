"""Keeps standby copies of tasks that other workers still run, so that a handoff is short.

A standby copy is restored without a fence and without writing to the journal. Then it is updated continuously from the
journal. An acquire starts from that open state, and verifies everything again after the fence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.names import TaskId
from pipeline.core.recovery import Start
from pipeline.errors import PipelineError
from pipeline.ports import Pending, Store, error_fields, task_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.restore import catch_up

__all__ = ["StandbyTasks"]

MAX_CATCHING_UP = 2  # restored at a time, in addition to the live tasks
PAUSE_S = 1.0
AFTER_ERROR_S = 5.0
# A step that took less, or had less to do during the previous one, makes a handoff short.
SHORT_S = 0.5
SHORT_ENTRIES = 50


class _CopyStep(NamedTuple):
    """The result of a step."""

    copy: Store
    seconds: float
    replayed: int
    start: Start


@dataclass(slots=True)
class _StandbyTask:
    cluster_id: str
    after: Pending[None] | None
    copy: Store | None = None
    step: Pending[_CopyStep] | None = None
    due_s: float = 0.0
    steps: int = 0
    start: Start | None = None  # of the first step: where the copy comes from
    ready: bool = False


class StandbyTasks:
    """All standby tasks. Processing thread only; the copies are updated on the executor."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._tasks: dict[TaskId, _StandbyTask] = {}
        self._closing: dict[TaskId, Pending[None]] = {}  # copies that were dropped

    def __contains__(self, task: object) -> bool:
        return task in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closing(self) -> list[TaskId]:
        """The dropped tasks whose copies may still be open."""
        return [task for task, closing in self._closing.items() if not closing.done()]

    @property
    def tasks(self) -> list[TaskId]:
        return list(self._tasks)

    def begin(self, task: TaskId, cluster_id: str) -> None:
        self._tasks[task] = _StandbyTask(cluster_id, self._closing.get(task))

    def begin_without_state(self, task: TaskId) -> None:
        """Add a task without local state. It is ready at the next turn, because nothing must be copied."""
        self._tasks[task] = _StandbyTask("", None, due_s=math.inf)

    def turn(self) -> list[TaskId]:
        """Do what is due. Returns the tasks that have become ready."""
        now = self._environment.clock.monotonic_s()
        self._closing = {task: closing for task, closing in self._closing.items() if not closing.done()}
        ready = []
        for task, standby in self._tasks.items():
            if standby.due_s == math.inf and not standby.ready:
                standby.ready = True
                ready.append(task)
            if standby.step is None or not standby.step.done():
                continue
            step, standby.step = standby.step, None
            try:
                standby.copy, seconds, replayed, start = step.result()
            except PipelineError as error:
                # Its owner keeps the task until this succeeds.
                self._environment.log.warning("standby_failed", **task_fields(task), **error_fields(error))
                standby.copy, standby.due_s = None, now + AFTER_ERROR_S
                continue
            standby.steps += 1
            standby.start = standby.start or start
            short = seconds < SHORT_S or (standby.steps > 1 and replayed < SHORT_ENTRIES)
            standby.due_s = now + PAUSE_S if short else now
            if short and not standby.ready:
                standby.ready = True
                ready.append(task)
                self._environment.log.info(
                    "standby_ready", **task_fields(task), restored_from=standby.start.value
                )
        busy = sum(standby.step is not None for standby in self._tasks.values())
        for task, standby in self._tasks.items():
            if standby.step is None and now >= standby.due_s and busy < MAX_CATCHING_UP:
                busy += 1
                copy, standby.copy = standby.copy, None
                standby.step = self._environment.executor.submit(
                    _catch_up_step(task, standby, copy, self._environment)
                )
        return ready

    def release_copy(self, task: TaskId) -> Callable[[], Store | None] | None:
        """Stop updating a copy.

        Returns a function that waits for the current step and returns the copy; None if none.
        """
        standby = self._tasks.pop(task, None)
        if standby is None:
            closing = self._closing.get(task)
            return None if closing is None else closing.result
        step, copy = standby.step, standby.copy
        if step is None:
            return lambda: copy
        return lambda: _result(step, task, self._environment)

    def drop(self, task: TaskId) -> Pending[None] | None:
        """Drop a copy. Returns a function that closes it."""
        release = self.release_copy(task)
        if release is None:
            return None

        def close() -> None:
            copy = release()
            if copy is not None:
                copy.close()

        self._closing[task] = self._environment.executor.submit(close)
        return self._closing[task]

    def close(self) -> None:
        """Drop all copies, and wait until they are closed."""
        for pending in [self.drop(task) for task in list(self._tasks)]:
            if pending is not None:
                pending.result()


def _catch_up_step(
    task: TaskId, standby: _StandbyTask, copy: Store | None, environment: Environment
) -> Callable[[], _CopyStep]:
    def step() -> _CopyStep:
        began = environment.clock.monotonic_s()
        if standby.after is not None:
            standby.after.result()
        store, replayed, start = catch_up(task, standby.cluster_id, copy, environment)
        return _CopyStep(store, environment.clock.monotonic_s() - began, replayed, start)

    return step


def _result(step: Pending[_CopyStep], task: TaskId, environment: Environment) -> Store | None:
    try:
        return step.result().copy
    except PipelineError as error:
        environment.log.warning("standby_failed", **task_fields(task), **error_fields(error))
        return None
