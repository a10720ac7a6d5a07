"""What a worker has done so far, in numbers, for people and metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.runtime.task import Task

__all__ = ["Progress", "counts_of"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts since the worker started."""

    records: int
    outputs: int
    commits: int
    skipped: int
    dead_lettered: int
    live: int
    restoring: int
    following: int
    failed: int
    retried: int = 0
    duplicates: int = 0
    late_duplicates: int = 0


def counts_of(task: Task) -> Counter[str]:
    """By name of the field of `Progress`."""
    return Counter(
        records=task.records,
        outputs=task.outputs,
        commits=task.commits,
        skipped=task.rejected.skipped,
        dead_lettered=task.rejected.dead_lettered,
        retried=task.rejected.retried,
        duplicates=sum(ids.dropped.duplicates for ids in task.dedup.values()),
        late_duplicates=sum(ids.dropped.late for ids in task.dedup.values()),
    )
