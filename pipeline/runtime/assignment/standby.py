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
from pipeline.errors import PipelineError
from pipeline.ports import Pending, Store, error_fields, task_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore.restore import catch_up

__all__ = ["StandbyTasks"]

MAX_CATCHING_UP = 2  # restored at a time, beside the live tasks
AGAIN_S = 1.0
AFTER_ERROR_S = 5.0
# A step that took less, or had less to do during the previous one, makes a handoff short.
SHORT_S = 0.5
SHORT_ENTRIES = 50


class _CopyStep(NamedTuple):
    """The result of a step."""

    copy: Store
    seconds: float
    replayed: int


@dataclass(slots=True)
class _StandbyTask:
    cluster_id: str
    after: Pending[None] | None
    copy: Store | None = None
    step: Pending[_CopyStep] | None = None
    due_s: float = 0.0
    steps: int = 0
    ready: bool = False


class StandbyTasks:
    """All standby tasks. Processing thread only; the copies are updated on the executor."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._followers: dict[TaskId, _StandbyTask] = {}
        self._closing: dict[TaskId, Pending[None]] = {}  # copies that were dropped

    def __contains__(self, task: object) -> bool:
        return task in self._followers

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def closing(self) -> list[TaskId]:
        """The dropped tasks whose copies may still be open."""
        return [task for task, closing in self._closing.items() if not closing.done()]

    @property
    def tasks(self) -> list[TaskId]:
        return list(self._followers)

    def begin(self, task: TaskId, cluster_id: str) -> None:
        self._followers[task] = _StandbyTask(cluster_id, self._closing.get(task))

    def begin_without_state(self, task: TaskId) -> None:
        """Add a task without local state. It is ready at the next turn, because nothing must be copied."""
        self._followers[task] = _StandbyTask("", None, due_s=math.inf)

    def turn(self) -> list[TaskId]:
        """Do what is due. Returns the tasks that have become ready."""
        now = self._environment.clock.monotonic_s()
        self._closing = {task: closing for task, closing in self._closing.items() if not closing.done()}
        ready = []
        for task, follower in self._followers.items():
            if follower.due_s == math.inf and not follower.ready:
                follower.ready = True
                ready.append(task)
            if follower.step is None or not follower.step.done():
                continue
            step, follower.step = follower.step, None
            try:
                follower.copy, seconds, replayed = step.result()
            except PipelineError as error:
                # Its owner keeps the task until this succeeds.
                self._environment.log.warning("standby_failed", **task_fields(task), **error_fields(error))
                follower.copy, follower.due_s = None, now + AFTER_ERROR_S
                continue
            follower.steps += 1
            short = seconds < SHORT_S or (follower.steps > 1 and replayed < SHORT_ENTRIES)
            follower.due_s = now + AGAIN_S if short else now
            if short and not follower.ready:
                follower.ready = True
                ready.append(task)
        busy = sum(follower.step is not None for follower in self._followers.values())
        for task, follower in self._followers.items():
            if follower.step is None and now >= follower.due_s and busy < MAX_CATCHING_UP:
                busy += 1
                copy, follower.copy = follower.copy, None
                follower.step = self._environment.executor.submit(
                    _catching_up(task, follower, copy, self._environment)
                )
        return ready

    def take(self, task: TaskId) -> Callable[[], Store | None] | None:
        """Stop updating a copy.

        Returns a function that waits for the current step and returns the copy; None if none.
        """
        follower = self._followers.pop(task, None)
        if follower is None:
            closing = self._closing.get(task)
            return None if closing is None else closing.result
        step, copy = follower.step, follower.copy
        if step is None:
            return lambda: copy
        return lambda: _result(step, task, self._environment)

    def forget(self, task: TaskId) -> Pending[None] | None:
        """Drop a copy. Returns a function that closes it."""
        take = self.take(task)
        if take is None:
            return None

        def close() -> None:
            copy = take()
            if copy is not None:
                copy.close()

        self._closing[task] = self._environment.executor.submit(close)
        return self._closing[task]

    def close(self) -> None:
        """Drop all copies, and wait until they are closed."""
        for pending in [self.forget(task) for task in list(self._followers)]:
            if pending is not None:
                pending.result()


def _catching_up(
    task: TaskId, follower: _StandbyTask, copy: Store | None, environment: Environment
) -> Callable[[], _CopyStep]:
    def step() -> _CopyStep:
        began = environment.clock.monotonic_s()
        if follower.after is not None:
            follower.after.result()
        store, replayed = catch_up(task, follower.cluster_id, copy, environment)
        return _CopyStep(store, environment.clock.monotonic_s() - began, replayed)

    return step


def _result(step: Pending[_CopyStep], task: TaskId, environment: Environment) -> Store | None:
    try:
        return step.result().copy
    except PipelineError as error:
        environment.log.warning("standby_failed", **task_fields(task), **error_fields(error))
        return None
