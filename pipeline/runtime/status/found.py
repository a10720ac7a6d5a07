"""The status of an app: `AppStatus` and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline.core.names import GroupId, TaskId
from pipeline.core.problem import Problem
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.runtime.status.dead_letter_tallies import GroupLetters

__all__ = ["AppStatus", "TaskPhase", "TaskStatus", "WorkerStatus"]


class TaskPhase(StrEnum):
    """The phase of a task. UNOWNED: no worker runs it; if workers are alive, one of them will.

    RETIRED: another app has replaced its app.
    """

    LIVE = "live"
    RESTORING = "restoring"
    MOVING = "moving"
    UNOWNED = "unowned"
    FAILED = "failed"
    NEW = "new"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """`worker`: the current or last worker. `positions`: the next input offsets. `entry_ms`: time of the last entry.

    `checkpoint_ms`: the time of the newest checkpoint; 0 if there is none. `restore_s`: predicted, on an empty disk.
    `database`: that of a sink task, whose `seq` is its epoch; empty for a task with a journal. `problem`: why it failed
    or waits. `retrying`: it waits because a record is retried. `records_per_s`: input offsets per second of its last
    commits (`reading.RATE_S`); None if unknown.
    """

    task: TaskId
    phase: TaskPhase
    worker: str
    seq: int
    lag: int
    positions: Mapping[str, int]
    entry_ms: int
    next_worker: str = ""
    problem: str = ""
    checkpoint_ms: int = 0
    checkpoint_bytes: int = 0
    journal_bytes: int = 0  # after the checkpoint
    restore_s: float = 0.0
    database: str = ""
    records_per_s: float | None = None
    retrying: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker. `waiting`: workers of another version must leave before it gets tasks.

    `parameters`: equal for workers that share the same tasks (`Member`).
    """

    worker: str
    process: str
    weight: int
    tasks: int
    waiting: bool
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The status. `problems`: for the operator. `letters`: those of the groups that have a dead-letter topic.

    `deferred`: the live workers on which a group has not started. `speeds`: how fast live workers have recovered.
    """

    app: str
    tasks: Sequence[TaskStatus]
    workers: Sequence[WorkerStatus]
    problems: Sequence[Problem]
    letters: Sequence[GroupLetters] = ()
    deferred: Mapping[GroupId, Sequence[str]] = field(default_factory=dict)
    speeds: Mapping[str, RecoverySpeed] = field(default_factory=dict)

    def named(self, target: str) -> AppStatus:
        """The same, with the app as `target` in the commands of the hints, so that they can be copied."""
        problems = [replace(each, hint=each.hint.replace("MODULE:APP", target)) for each in self.problems]
        return replace(self, problems=problems)
