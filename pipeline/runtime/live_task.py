"""What a worker knows of a task, whatever its authority is: `LiveTask`, `Restored`, `TaskBackend`.

A group of handlers has its journals as the authority (`runtime/journaled.py`), a group of sinks its database
(`runtime/sinks/authority.py`). The worker, the ring and the notes treat both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.membership import Owner
from pipeline.core.names import TaskId
from pipeline.errors import PipelineError
from pipeline.ports import Pending, Record, Store
from pipeline.runtime.crashes import InputCrashes
from pipeline.runtime.task.backlog import Retried
from pipeline.runtime.task.processor import Rejected
from pipeline.runtime.watchdog import AtWork

__all__ = ["LiveTask", "RestoreRequest", "RestoredTask", "TaskBackend", "TaskPosition"]


class TaskPosition(Protocol):
    """Where a task stands. `seq`: the number of its last entry, or of its owner; it rises from owner to owner."""

    @property
    def seq(self) -> int: ...

    @property
    def positions(self) -> Mapping[str, int]: ...


class LiveTask(Protocol):
    """The processing thread's side of a task. Whatever raises, raises what ended it."""

    crashes: InputCrashes  # set by the worker before the first record

    @property
    def id(self) -> TaskId: ...

    @property
    def applied(self) -> TaskPosition: ...

    @property
    def idle(self) -> bool:
        """Nothing open, nothing under way, nothing waiting."""
        ...

    @property
    def poison(self) -> PipelineError | None:
        """Why it takes nothing more; it ends once what came before is committed."""
        ...

    @property
    def backlog_records(self) -> int: ...

    @property
    def retried(self) -> Retried | None:
        """The record that is tried again, and for which others of its topic wait."""
        ...

    @property
    def at_work(self) -> AtWork | None: ...

    @property
    def written(self) -> Sequence[str]:
        """Topics that it has written to."""
        ...

    @property
    def records(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def rows(self) -> int: ...

    @property
    def commits(self) -> int: ...

    @property
    def duplicates(self) -> tuple[int, int]:
        """How many were dropped, and how many let through, known to be late."""
        ...

    @property
    def rejected(self) -> Rejected: ...

    def offer(self, topic: str, records: Sequence[Record]) -> None:
        """Process records of this task's partition of `topic`, now or when there is room."""
        ...

    def advance(self) -> bool:
        """Do what is due. True when anything moved."""
        ...

    def pass_over(self, positions: Mapping[str, int]) -> None:
        """Commit these positions, below which no record is left to process. Only while idle."""
        ...

    def leave(self) -> None:
        """Give the task up: it has left when it is idle."""
        ...

    def wait(self) -> None:
        """Wait for the commit under way."""
        ...

    def stop_waiting(self) -> None:
        """From now on what does not answer ends the commit under way."""
        ...

    def close(self) -> Pending[None] | None:
        """Forget what is not committed; what ends that, if it takes time."""
        ...


class RestoredTask(Protocol):
    """A task that was restored and is owned."""

    @property
    def applied(self) -> TaskPosition: ...

    @property
    def start(self) -> str: ...

    @property
    def replayed(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def proof_s(self) -> float:
        """How much of that it took to prove that what was read is current."""
        ...

    def live(self) -> LiveTask:
        """Go on from there, on the processing thread."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore, and what comes first.

    `process`: this one. `noted`: the highest number of an owner that workers have told each other. `wait_s`: a
    pause. `damage`: why the state on disk is to be set aside. `copy_of`: gives the followed copy to start from.
    `closing`: what still closes the task as it was here before.
    """

    task: TaskId
    process: str
    noted: int = 0
    wait_s: float = 0.0
    damage: str | None = None
    copy_of: Callable[[], Store | None] | None = None
    closing: Pending[None] | None = None


class TaskBackend(Protocol):
    """What decides about the tasks of one group. Called on the processing thread; what waits runs elsewhere."""

    def begin(self) -> None:
        """Make sure that the group has begun. Raises ConfigError, FatalTaskError, UnreachableError."""
        ...

    def begin_later(self) -> Pending[None]:
        """`begin`, beside the processing thread."""
        ...

    def begin_restore(self, asked: RestoreRequest) -> Pending[RestoredTask]: ...

    def find_owner(self, task: TaskId, place: TaskPosition | None) -> Pending[Owner | None]:
        """Who has taken the task after `place`, looked up in a while; None when nobody has."""
        ...

    def begin_check(self, places: Mapping[TaskId, TaskPosition]) -> Pending[set[TaskId]]:
        """Which of these idle tasks somebody else has taken."""
        ...

    def unanswered(self, error: PipelineError) -> bool:
        """A restore met no answer. Whether the authority says so itself, once for all its tasks."""
        ...

    def answered(self) -> None:
        """What did not answer does again."""
        ...

    def poll_problem(self) -> str | None:
        """What is wrong with the authority itself; empty when nothing is any more, None when nothing changed."""
        ...

    def close(self) -> None: ...
