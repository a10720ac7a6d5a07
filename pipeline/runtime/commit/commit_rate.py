"""Decides when the tasks of a worker commit, and limits their commits: `CommitRate`.

A commit costs a broker a few milliseconds of CPU time, even a small one. If a worker has many busy tasks and each
commits ten times a second, the commits use most of a machine. So above a rate, each commit contains more records.

The rule for one task is `core/commit_pace.py`. There are two limits, each a token bucket with a queue:

- all commits of a worker: `max_commits_per_s`, one token each. A commit that contains records of several partitions
  pays its cost, 1 + K/8 for K written partitions, but never more than a token for each of these partitions.
- early commits, of all workers of the app together: the same number, divided by the number of workers. An early commit
  needs a token of both. Of the second limit it pays its whole cost.

So early commits add at most `max_commits_per_s` to what the brokers have to do for commits at the interval, however
large the fleet is. And a group with fewer tasks than partitions costs the brokers at most as much as with one task for
each, and its limit is not lower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from pipeline.core.commit_pace import CommitVerdict, commit_cost, due_cost, poll_wait_s, rest_s, verdict
from pipeline.core.names import TaskId
from pipeline.ports import Clock

__all__ = ["CommitRate", "TaskPace"]

BURST_S = 0.1


class CommitRate:
    """The commits of all tasks of a worker. Processing thread only.

    Args:
        clock: The clock.
        commits_per_s: The limit.
        interval_ms: How long the first record of a commit waits at most, while the limit is not reached.
    """

    def __init__(self, clock: Clock, commits_per_s: int, interval_ms: int) -> None:
        self.clock = clock
        self.interval_s = interval_ms / 1000
        self._per_s = commits_per_s
        self._all = _Bucket(commits_per_s)
        self._early = _Bucket(commits_per_s)
        self._seen_s = clock.monotonic_s()
        self._idle_s = self._full_until_s = self._seen_s
        self._polled = 0  # records in this turn
        self._began_s: dict[TaskId, float] = {}  # of the commits under way
        self._rested_s: float | None = None  # when the first task that rests may commit early

    @property
    def behind(self) -> bool:
        """Whether more input waits: a poll was full within the last interval, or no turn was without records.

        The second condition is for large records, of which the client never keeps enough for a full poll.
        """
        return self._seen_s < self._full_until_s or self._seen_s - self._idle_s >= self.interval_s

    def turn(self, workers: int = 1) -> None:
        """Refill the buckets. Call it once per turn of the worker. `workers`: the live workers of the app."""
        now_s = self.clock.monotonic_s()
        self._all.refill((now_s - self._seen_s) * self._per_s)
        self._early.refill((now_s - self._seen_s) * self._per_s / max(1, workers))
        self._seen_s = now_s
        self._rested_s = None
        if not self._polled:
            self._idle_s = now_s
        self._polled = 0

    def polled(self, records: int, *, more_wait: bool) -> None:
        """A poll has returned this number of records. `more_wait`: others probably wait in the client."""
        self._polled += records
        if more_wait:
            self._full_until_s = self.clock.monotonic_s() + self.interval_s

    def may(self, task: TaskId) -> bool:
        """Whether the due commit of a task may begin now. If not, the task is added to the queue."""
        if not self._all.has_turn(task):
            self._all.add(task)
            return False
        self._all.take(task, 1.0)
        return True

    def may_early(self, task: TaskId) -> bool:
        """Whether a task may commit before its commit is due. Commits that are due come first."""
        if not self._early.has_turn(task) or self._all.waiting:
            self._early.add(task)
            return False
        self._all.take(task, 1.0)
        self._early.take(task, 1.0)
        return True

    def rests(self, until_s: float) -> None:
        """A task with open records may commit early from then on."""
        self._rested_s = until_s if self._rested_s is None else min(until_s, self._rested_s)

    def began(self, task: TaskId, at_s: float, extra: float = 0.0, early: float = 0.0) -> None:
        """A commit of this task has begun. `extra`, `early`: its cost above 1, of all and of early commits."""
        self.forget(task)
        self._began_s[task] = at_s
        self._all.take(task, extra)
        self._early.take(task, early)

    def ended(self, task: TaskId) -> None:
        """The task has no commit under way."""
        self._began_s.pop(task, None)

    def forget(self, task: TaskId) -> None:
        """Remove the task from the queues: it has committed, or it has left."""
        self._all.forget(task)
        self._early.forget(task)

    def poll_wait_s(self, longest_s: float, tasks: int) -> float:
        """How long a poll may wait for input, if this turn and the last one have changed nothing."""
        now_s = self.clock.monotonic_s()
        age_s = now_s - max(self._began_s.values()) if self._began_s else None
        rest_s = self._rested_s - now_s if self._rested_s is not None else None
        return poll_wait_s(longest_s, age_s, rest_s, tasks)


class TaskPace:
    """When one task commits."""

    def __init__(self, task: TaskId, rate: CommitRate, partitions: Mapping[str, int]) -> None:
        self._task = task
        self._rate = rate
        self._partitions = partitions  # of each output topic
        self._opened_s = self._began_s = self._ended_s = rate.clock.monotonic_s()
        self._paid = self._early = (
            False  # what the next commit has taken: a token of all, and one of early commits
        )

    def opened(self) -> None:
        """The first record of the next commit is processed."""
        self._opened_s = self._rate.clock.monotonic_s()

    def due(self, *, backlog: bool) -> bool:
        """Whether the open commit is due, and may begin. `backlog`: whether records of this task wait."""
        rate, now_s = self._rate, self._rate.clock.monotonic_s()
        took_s = self._ended_s - self._began_s
        found = verdict(
            now_s - self._opened_s,
            now_s - self._ended_s,
            took_s,
            rate.interval_s,
            behind=backlog or rate.behind,
        )
        if found is CommitVerdict.DUE:
            self._paid = rate.may(self._task)
            return self._paid
        if found is CommitVerdict.LATER:
            rate.rests(self._ended_s + rest_s(took_s, rate.interval_s))
            return False
        self._paid = self._early = rate.may_early(self._task)
        return self._early

    def began(self, outputs: Sequence[Sequence[Any]], inputs: int = 1) -> None:
        """The commit with these outputs begins. `inputs`: the number of partitions of which it contains records."""
        self._began_s = self._rate.clock.monotonic_s()
        cost = commit_cost(outputs, self._partitions) if self._paid else 1.0  # a full commit takes no tokens
        early = cost - 1.0 if self._early else 0.0
        self._rate.began(self._task, self._began_s, due_cost(cost, inputs) - 1.0, early)
        self._paid = self._early = False

    def ended(self) -> None:
        """The commit in progress has ended."""
        self._ended_s = self._rate.clock.monotonic_s()
        self._rate.ended(self._task)

    def close(self) -> None:
        """The task has left this worker."""
        self._rate.forget(self._task)
        self._rate.ended(self._task)


class _Bucket:
    """A token bucket with a queue: of the tasks that wait, the one that waited longest is first."""

    def __init__(self, per_s: int) -> None:
        self._most = max(1.0, per_s * BURST_S)
        self._tokens = self._most
        self._queue: dict[TaskId, None] = {}
        self._next: frozenset[TaskId] = frozenset()

    @property
    def waiting(self) -> bool:
        """Whether a task must wait."""
        return bool(self._queue) or self._tokens < 1.0

    def refill(self, tokens: float) -> None:
        self._tokens = min(self._most, self._tokens + tokens)
        if self._queue:
            self._next = frozenset(islice(self._queue, max(0, int(self._tokens))))

    def has_turn(self, task: TaskId) -> bool:
        """Whether there is a token for the task, and no other task waits for it."""
        return self._tokens >= 1.0 and (not self._queue or task in self._next)

    def add(self, task: TaskId) -> None:
        """Add a task to the queue, unless it waits already."""
        self._queue.setdefault(task)

    def take(self, task: TaskId, tokens: float) -> None:
        """Take tokens, also more than there are: the next ones wait longer."""
        self._queue.pop(task, None)
        self._tokens -= tokens

    def forget(self, task: TaskId) -> None:
        self._queue.pop(task, None)
