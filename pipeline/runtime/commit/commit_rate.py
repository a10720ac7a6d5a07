"""Limits the commit rate of a worker, summed over its tasks: `CommitRate`.

A commit costs a broker about a millisecond, even a small one. If a worker has many busy tasks and each commits ten
times a second, the commits use most of a machine. So above a rate, each commit contains more records instead.
"""

from __future__ import annotations

from itertools import islice

from pipeline.core.names import TaskId
from pipeline.ports import Clock

__all__ = ["CommitRate"]

BURST_S = 0.1


class CommitRate:
    """A token bucket with a queue: of the tasks whose commit is due, the one that waited longest is first."""

    def __init__(self, clock: Clock, commits_per_s: int) -> None:
        self._clock = clock
        self._per_s = commits_per_s
        self._most = max(1.0, commits_per_s * BURST_S)
        self._tokens = self._most
        self._seen_s = clock.monotonic_s()
        self._queue: dict[TaskId, None] = {}
        self._next: frozenset[TaskId] = frozenset()

    def turn(self) -> None:
        """Refill the bucket. Call it once per turn of the worker, before `may`."""
        now = self._clock.monotonic_s()
        self._tokens = min(self._most, self._tokens + (now - self._seen_s) * self._per_s)
        self._seen_s = now
        if self._queue:
            self._next = frozenset(islice(self._queue, int(self._tokens)))

    def may(self, task: TaskId) -> bool:
        """Whether the due commit of a task may begin now. If not, the task is added to the queue."""
        if self._tokens < 1.0 or (self._queue and task not in self._next):
            self._queue.setdefault(task)
            return False
        self._queue.pop(task, None)
        self._tokens -= 1.0
        return True

    def forget(self, task: TaskId) -> None:
        """Remove the task from the queue."""
        self._queue.pop(task, None)
