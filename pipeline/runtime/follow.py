"""Keeps copies of tasks that other workers still run, so that a handoff has little left to do.

A follower restores the state without a fence and without a word to the journal, and then reads on behind its owner.
Taking the task over starts from that open state; everything is checked again then, behind the fence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.names import TaskId
from pipeline.errors import PipelineError
from pipeline.ports import Pending, Store
from pipeline.runtime.restore import catch_up
from pipeline.runtime.world import World

__all__ = ["Followers"]

MAX_CATCHING_UP = 2  # at a time, beside the tasks that are live here
AGAIN_S = 1.0
AFTER_ERROR_S = 5.0
SHORT_S = 0.5  # one that took less has little left to do, and so will the handoff

_Step = tuple[Store, float]


@dataclass(slots=True)
class _Follower:
    cluster_id: str
    copy: Store | None = None
    step: Pending[_Step] | None = None
    due_s: float = 0.0
    ready: bool = False


class Followers:
    """Every task that is followed. Processing thread only; the copying runs on the executor."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._followers: dict[TaskId, _Follower] = {}

    def __contains__(self, task: object) -> bool:
        return task in self._followers

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def tasks(self) -> list[TaskId]:
        return list(self._followers)

    def begin(self, task: TaskId, cluster_id: str) -> None:
        self._followers[task] = _Follower(cluster_id)

    def turn(self) -> list[TaskId]:
        """Do what is due; the tasks that have become ready."""
        now = self._world.clock.monotonic_s()
        ready = []
        for task, follower in self._followers.items():
            if follower.step is None or not follower.step.done():
                continue
            step, follower.step = follower.step, None
            try:
                follower.copy, seconds = step.result()
            except PipelineError as error:
                # Its owner goes on, and keeps it until this works.
                self._world.log.warning("following_failed", task=str(task), reason=error.message)
                follower.copy, follower.due_s = None, now + AFTER_ERROR_S
                continue
            short = seconds < SHORT_S
            follower.due_s = now + AGAIN_S if short else now
            if short and not follower.ready:
                follower.ready = True
                ready.append(task)
        busy = sum(follower.step is not None for follower in self._followers.values())
        for task, follower in self._followers.items():
            if follower.step is None and now >= follower.due_s and busy < MAX_CATCHING_UP:
                busy += 1
                copy, follower.copy = follower.copy, None
                step_ = _catching_up(task, follower.cluster_id, copy, self._world)
                follower.step = self._world.executor.submit(step_)
        return ready

    def take(self, task: TaskId) -> Callable[[], Store | None] | None:
        """Stop following; what gives the copy, waiting for a step under way. None without any."""
        follower = self._followers.pop(task, None)
        if follower is None:
            return None
        step, copy = follower.step, follower.copy
        if step is None:
            return lambda: copy
        return lambda: _result(step, task, self._world)

    def forget(self, task: TaskId) -> Pending[None] | None:
        """Stop following, and close the copy; what does that."""
        take = self.take(task)
        if take is None:
            return None

        def close() -> None:
            copy = take()
            if copy is not None:
                copy.close()

        return self._world.executor.submit(close)

    def close(self) -> None:
        """Forget all, and wait for that."""
        for pending in [self.forget(task) for task in list(self._followers)]:
            if pending is not None:
                pending.result()


def _catching_up(task: TaskId, cluster_id: str, copy: Store | None, world: World) -> Callable[[], _Step]:
    def step() -> _Step:
        began = world.clock.monotonic_s()
        store, _ = catch_up(task, cluster_id, copy, world)
        return store, world.clock.monotonic_s() - began

    return step


def _result(step: Pending[_Step], task: TaskId, world: World) -> Store | None:
    try:
        return step.result()[0]
    except PipelineError as error:
        world.log.warning("following_failed", task=str(task), reason=error.message)
        return None
