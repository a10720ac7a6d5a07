"""Limits how often a worker commits, over all its tasks: `CommitRate`.

A commit costs a broker about a millisecond, however little is in it. A worker of many busy tasks that each commit ten
times a second would spend most of a machine on that; so beyond a rate each commit carries more instead.
"""

from __future__ import annotations

from itertools import islice

from pipeline.core.names import TaskId
from pipeline.ports import Clock

__all__ = ["CommitRate"]

BURST_S = 0.1


class CommitRate:
    """A token bucket with a queue: tasks whose commit is due take turns, the longest waiting first."""

    def __init__(self, clock: Clock, commits_per_s: int) -> None:
        self._clock = clock
        self._per_s = commits_per_s
        self._most = max(1.0, commits_per_s * BURST_S)
        self._tokens = self._most
        self._seen_s = clock.monotonic_s()
        self._queue: dict[TaskId, None] = {}
        self._next: frozenset[TaskId] = frozenset()

    def turn(self) -> None:
        """Once a turn of the worker, before its tasks ask."""
        now = self._clock.monotonic_s()
        self._tokens = min(self._most, self._tokens + (now - self._seen_s) * self._per_s)
        self._seen_s = now
        if self._queue:
            self._next = frozenset(islice(self._queue, int(self._tokens)))

    def may(self, task: TaskId) -> bool:
        """Whether a commit of the task that is due may begin now. One that may not has its place in the queue."""
        if self._tokens < 1.0 or (self._queue and task not in self._next):
            self._queue.setdefault(task)
            return False
        self._queue.pop(task, None)
        self._tokens -= 1.0
        return True

    def forget(self, task: TaskId) -> None:
        """It is here no more."""
        self._queue.pop(task, None)
