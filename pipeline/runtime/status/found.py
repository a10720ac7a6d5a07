"""What a look at an app has found: `AppStatus` and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.core.names import TaskId
from pipeline.core.problem import Problem
from pipeline.runtime.status.dead_letter_tallies import GroupLetters

__all__ = ["AppStatus", "TaskPhase", "TaskStatus", "WorkerStatus"]


class TaskPhase(StrEnum):
    """Where a task is. UNOWNED: nobody runs it now; with workers alive, one of them is about to.

    RETIRED: another app has taken the place of its own.
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
    """`worker`: who runs it, or ran it last. `positions`: next input offsets. `entry_ms`: time of the last entry.

    `checkpoint_ms`: of the newest checkpoint, 0 without any. `restore_s`: on an empty disk, predicted. `database`: of a
    task of sinks, whose `seq` is its epoch; empty for one with a journal. `problem`: why it failed, or waits.
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
    journal_bytes: int = 0  # behind the checkpoint
    restore_s: float = 0.0
    database: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A living worker. `waiting`: workers of another version must leave before it gets tasks."""

    worker: str
    process: str
    weight: int
    tasks: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class AppStatus:
    """All of it. `problems`: what a person should look at. `letters`: of the groups that have a dead-letter topic."""

    app: str
    tasks: Sequence[TaskStatus]
    workers: Sequence[WorkerStatus]
    problems: Sequence[Problem]
    letters: Sequence[GroupLetters] = ()
