"""The status of an app: `AppStatus` and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.core.names import TaskId
from pipeline.core.problem import Problem
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
    or waits.
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


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker. `waiting`: workers of another version must leave before it gets tasks."""

    worker: str
    process: str
    weight: int
    tasks: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class AppStatus:
    """The status. `problems`: for the operator. `letters`: those of the groups that have a dead-letter topic."""

    app: str
    tasks: Sequence[TaskStatus]
    workers: Sequence[WorkerStatus]
    problems: Sequence[Problem]
    letters: Sequence[GroupLetters] = ()
