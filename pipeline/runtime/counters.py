"""Counts of a worker's work, for people and metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.runtime.live_task import LiveTask

__all__ = ["WorkerCounters", "counts_of"]


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """Counts since the worker started."""

    records: int
    outputs: int
    commits: int
    skipped: int
    dead_lettered: int
    live: int
    restoring: int
    standby: int
    failed: int
    retried: int = 0
    duplicates: int = 0
    late_duplicates: int = 0
    rows: int = 0


def counts_of(task: LiveTask) -> Counter[str]:
    """The counts, by field name of `WorkerCounters`."""
    return Counter(
        records=task.records,
        outputs=task.outputs,
        rows=task.rows,
        commits=task.commits,
        skipped=task.rejected.skipped,
        dead_lettered=task.rejected.dead_lettered,
        retried=task.rejected.retried,
        duplicates=task.duplicates[0],
        late_duplicates=task.duplicates[1],
    )
