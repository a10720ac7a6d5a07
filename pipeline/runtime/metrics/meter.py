"""`Meter`: counts the events of a worker: batches, commits, fences, restores and moves.

A call costs about a microsecond and is made for a batch or a commit, never for a record. The processing thread and the
executor threads count; an HTTP thread reads with `read`. `Environment.meter` is None in a worker without an HTTP port:
then nothing is counted.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from pipeline.core.names import GroupId, TaskId
from pipeline.errors import FencedError, RefusedError, RejectedRowsError, SupersededError
from pipeline.runtime.restore.progress import RestoreProgress

__all__ = [
    "COMMIT_BOUNDS_S",
    "HANDLER_BOUNDS_S",
    "RESTORE_BOUNDS_S",
    "CommitResult",
    "Histogram",
    "Measured",
    "Meter",
]

HANDLER_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
COMMIT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RESTORE_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Histogram:
    """Counts observed values by upper bound.

    Args:
        bounds: The upper bounds of the buckets in increasing order. A value equal to a bound is in its bucket. A last
            bucket without a bound is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """The number of observed values."""
        return sum(self.counts)

    def copy(self) -> Histogram:
        """A copy that later observations do not change."""
        copied = Histogram(self.bounds)
        copied.counts, copied.total = list(self.counts), self.total
        return copied

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, number of values up to it), as Prometheus writes them; the last bound is `+Inf`."""
        found, seen = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            seen += count
            found.append((bound, float(seen)))
        return found


class CommitResult(StrEnum):
    """The outcome of one attempt at a commit.

    ABORTED: it was not committed, and is repeated. REFUSED: because of the content of an output or a row; the records
    are processed again in smaller commits. FENCED: another owner has the task.
    """

    COMMITTED = "committed"
    ABORTED = "aborted"
    REFUSED = "refused"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a meter has counted since its start, at one moment.

    Attributes:
        handler_s: The durations of batches in handlers, by group.
        busy_s: The seconds in handlers by group, including the running batch.
        commit_s: The durations of commits by group, from the seal to the applied state.
        restore_s: The durations of restores by group.
        commits: Attempts by task and result.
        commit_wait_s: The seconds in which records waited for a commit, by task.
        fences: By task.
        renewals: Of the producer, by task.
        moves: Tasks that came from another worker, by group and whether that worker had released them.
        restores: The restores in progress.
    """

    handler_s: Mapping[GroupId, Histogram]
    busy_s: Mapping[GroupId, float]
    commit_s: Mapping[GroupId, Histogram]
    restore_s: Mapping[GroupId, Histogram]
    commits: Mapping[tuple[TaskId, CommitResult], int]
    commit_wait_s: Mapping[TaskId, float]
    fences: Mapping[TaskId, int]
    renewals: Mapping[TaskId, int]
    moves: Mapping[tuple[GroupId, bool], int]
    restores: Mapping[TaskId, RestoreProgress]


class Meter:
    """The counts of one worker.

    Args:
        monotonic_s: The clock.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._handler_s: dict[GroupId, Histogram] = {}
        self._commit_s: dict[GroupId, Histogram] = {}
        self._restore_s: dict[GroupId, Histogram] = {}
        self._commits = Counter[tuple[TaskId, CommitResult]]()
        self._commit_wait_s: dict[TaskId, float] = {}
        self._fences = Counter[TaskId]()
        self._renewals = Counter[TaskId]()
        self._moves = Counter[tuple[GroupId, bool]]()
        self._restores: dict[TaskId, RestoreProgress] = {}
        self._running: tuple[GroupId, float] | None = None  # the running batch, and its start
        self._waiting: dict[TaskId, float] = {}  # tasks whose records wait for a commit, and since when

    @contextmanager
    def handling(self, task: TaskId) -> Iterator[None]:
        """Time a batch of records in handlers, even if it raises. Processing thread only."""
        began_s = self._now_s()
        self._running = task.group_id, began_s
        try:
            yield
        finally:
            seconds = self._now_s() - began_s
            with self._lock:
                self._running = None
                _of(self._handler_s, task.group_id, HANDLER_BOUNDS_S).observe(seconds)

    @contextmanager
    def running_calls(self, group: GroupId, waited_s: Callable[[], float]) -> Iterator[None]:
        """Time a slice of the event loop, without its waits. `waited_s`: those of the loop so far."""
        began_s, before_s = self._now_s(), waited_s()
        self._running = group, began_s
        try:
            yield
        finally:
            seconds = max(0.0, self._now_s() - began_s - (waited_s() - before_s))
            with self._lock:
                self._running = None
                _of(self._handler_s, group, HANDLER_BOUNDS_S).observe(seconds)

    def waits(self, task: TaskId, *, waiting: bool) -> None:
        """Note whether records of a task wait for a commit. Processing thread only; called once per turn."""
        since_s = self._waiting.get(task)
        if since_s is None and not waiting:
            return
        now_s = self._now_s()
        if since_s is not None:
            with self._lock:
                self._commit_wait_s[task] = self._commit_wait_s.get(task, 0.0) + now_s - since_s
        if waiting:
            self._waiting[task] = now_s
        else:
            del self._waiting[task]

    @contextmanager
    def committing(self, task: TaskId) -> Iterator[None]:
        """Time a commit, and count its outcome. Other failures than a fence and a refusal are counted by the caller."""
        began_s = self._now_s()
        try:
            yield
        except (FencedError, SupersededError):
            self.not_committed(task, CommitResult.FENCED)
            raise
        except (RefusedError, RejectedRowsError):
            self.not_committed(task, CommitResult.REFUSED)
            raise
        with self._lock:
            self._commits[task, CommitResult.COMMITTED] += 1
            _of(self._commit_s, task.group_id, COMMIT_BOUNDS_S).observe(self._now_s() - began_s)

    def not_committed(self, task: TaskId, result: CommitResult) -> None:
        """An attempt at a commit has failed."""
        with self._lock:
            self._commits[task, result] += 1

    def fenced(self, task: TaskId) -> None:
        """Another owner, or a transaction time-out, has fenced a task of this worker."""
        with self._lock:
            self._fences[task] += 1

    def renewed(self, task: TaskId) -> None:
        """The producer of a task was renewed after a failure or a slow end."""
        with self._lock:
            self._renewals[task] += 1

    def moved(self, task: TaskId, *, planned: bool) -> None:
        """A task came from another worker. `planned`: that worker had released it."""
        with self._lock:
            self._moves[task.group_id, planned] += 1

    @contextmanager
    def restoring(self, task: TaskId, progress: RestoreProgress) -> Iterator[None]:
        """Show the progress of a restore while it runs."""
        with self._lock:
            self._restores[task] = progress
        try:
            yield
        finally:
            with self._lock:
                self._restores.pop(task, None)

    def restored(self, task: TaskId, seconds: float) -> None:
        """A task was restored."""
        with self._lock:
            _of(self._restore_s, task.group_id, RESTORE_BOUNDS_S).observe(seconds)

    def read(self) -> Measured:
        """Copies of all counts. Any thread may call this."""
        with self._lock:
            running, now_s = self._running, self._now_s()
            busy_s = {group: histogram.total for group, histogram in self._handler_s.items()}
            if running is not None:
                busy_s[running[0]] = busy_s.get(running[0], 0.0) + now_s - running[1]
            return Measured(
                {group: histogram.copy() for group, histogram in self._handler_s.items()},
                busy_s,
                {group: histogram.copy() for group, histogram in self._commit_s.items()},
                {group: histogram.copy() for group, histogram in self._restore_s.items()},
                dict(self._commits),
                dict(self._commit_wait_s),
                dict(self._fences),
                dict(self._renewals),
                dict(self._moves),
                dict(self._restores),
            )


def _of(histograms: dict[GroupId, Histogram], group: GroupId, bounds: tuple[float, ...]) -> Histogram:
    histogram = histograms.get(group)
    if histogram is None:
        histogram = histograms[group] = Histogram(bounds)
    return histogram
