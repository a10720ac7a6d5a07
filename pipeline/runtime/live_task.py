"""The interfaces between a worker and its tasks, for handlers and sinks: `LiveTask`, `RestoredTask`, `TaskBackend`.

The source of truth of a handler group is its journals (`runtime/journal_backend.py`), that of a sink group its database
(`runtime/sinks/backend.py`). The worker, the ring and the notes treat both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.names import TaskId
from pipeline.core.notes import Owner
from pipeline.core.recovery_time import RestoreWork
from pipeline.errors import PipelineError
from pipeline.ports import Pending, Record, Store
from pipeline.runtime.crashes import InputCrashes
from pipeline.runtime.task.backlog import Retried
from pipeline.runtime.task.record_errors import Rejected
from pipeline.runtime.watchdog import AtWork

__all__ = ["LiveTask", "RestoreRequest", "RestoredTask", "TaskBackend", "TaskPosition"]


class TaskPosition(Protocol):
    """The position of a task in its history.

    `seq`: its last entry's seq, or a sink's epoch; it increases with each owner. `positions`: by input name.
    """

    @property
    def seq(self) -> int: ...

    @property
    def positions(self) -> Mapping[str, int]: ...


class LiveTask(Protocol):
    """A task on the processing thread. Any method may raise the error that ended the task."""

    crashes: InputCrashes  # the worker sets it before the first record

    @property
    def id(self) -> TaskId: ...

    @property
    def applied(self) -> TaskPosition: ...

    @property
    def positions(self) -> Mapping[str, int]:
        """The next offset to process, by input. It is ahead of `applied.positions` by the uncommitted records."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing is open, in progress or waiting."""
        ...

    @property
    def poison(self) -> PipelineError | None:
        """Why it accepts no more records at all. It ends once the earlier ones are committed."""
        ...

    @property
    def stopped(self) -> Mapping[int, PipelineError]:
        """The partitions of which it accepts no more records, and why; the others continue."""
        ...

    @property
    def backlog_records(self) -> int: ...

    @property
    def waiting(self) -> Mapping[int, int]:
        """The number of waiting records of each partition that has some."""
        ...

    def unfinished(self, partition: int) -> bool:
        """Whether records of a partition wait, or are being handled."""
        ...

    @property
    def retried(self) -> Retried | None:
        """The record that is being retried, for which others of its input wait."""
        ...

    @property
    def at_work(self) -> AtWork | None: ...

    @property
    def written(self) -> Sequence[str]:
        """The topics that it has written to."""
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
        """The duplicates that were dropped, and those that passed because they came after the time-to-live."""
        ...

    @property
    def rejected(self) -> Rejected: ...

    def offer(self, name: str, records: Sequence[Record]) -> None:
        """Process records of an input, now or once there is room."""
        ...

    def advance(self) -> bool:
        """Do what is due. Returns whether anything changed."""
        ...

    @property
    def clock_ms(self) -> int | None:
        """The event clock of the partition that is furthest behind; None without a clock."""
        ...

    @property
    def late_events(self) -> int:
        """How often an event was late for a window or a history."""
        ...

    @property
    def removed_values(self) -> int:
        """How often a value of a history was removed because its key had too many."""
        ...

    @property
    def removed_events(self) -> int:
        """How often an event of a join waited no longer because its key had too many."""
        ...

    def inputs_checked(self, at_end: Collection[str]) -> None:
        """The broker has answered: the records of the inputs `at_end` are processed, those of the others are not."""
        ...

    def skip_to(self, positions: Mapping[str, int]) -> None:
        """Commit these positions, below which no record is unprocessed. Only for inputs of which no record waits."""
        ...

    def leave(self) -> None:
        """Start to release the task: it is released once it is idle."""
        ...

    def wait(self) -> None:
        """Wait for the commit in progress."""
        ...

    def stop_waiting(self) -> None:
        """From now on, a broker that does not answer fails the commit in progress."""
        ...

    def close(self) -> Pending[None] | None:
        """Discard what is not committed. Returns a future if closing takes time."""
        ...


class RestoredTask(Protocol):
    """A task that is restored and acquired."""

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
        """The seconds of it that proving the reads current took."""
        ...

    @property
    def copy_s(self) -> float:
        """The seconds of it that copying a checkpoint took."""
        ...

    @property
    def work(self) -> RestoreWork | None:
        """What was copied and replayed; None without a journal."""
        ...

    def live(self) -> LiveTask:
        """Start processing, on the processing thread."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The task to restore, and what must happen first.

    `process`: this process. `noted`: the highest seq or epoch of an owner in the workers' notes. `wait_s`: a pause.
    `damage`: why the state on disk must be set aside. `copy_of`: returns the standby copy to start from. `closing`: the
    close of the task's previous instance in this worker, if it has not finished.
    """

    task: TaskId
    process: str
    noted: int = 0
    wait_s: float = 0.0
    damage: str | None = None
    copy_of: Callable[[], Store | None] | None = None
    closing: Pending[None] | None = None


class TaskBackend(Protocol):
    """The source of truth for the tasks of one group.

    Called on the processing thread; waiting steps run on executors.
    """

    @property
    def journal_id(self) -> str:
        """The id of the group's journal topic at the start of the group; empty if the group has no journal."""
        ...

    def begin(self) -> None:
        """Ensure that the group exists. Raises ConfigError, FatalTaskError, UnreachableError."""
        ...

    def begin_later(self) -> Pending[None]:
        """`begin` on an executor."""
        ...

    def begin_restore(self, request: RestoreRequest) -> Pending[RestoredTask]: ...

    def find_owner(self, task: TaskId, place: TaskPosition | None) -> Pending[Owner | None]:
        """Find, after a pause, the owner that acquired the task after `place`; None if there is none."""
        ...

    def begin_check(self, places: Mapping[TaskId, TaskPosition]) -> Pending[set[TaskId]]:
        """Which of these idle tasks another process has acquired."""
        ...

    def unanswered(self, error: PipelineError) -> bool:
        """A restore got no answer. Returns whether the backend logs this itself, once for all its tasks."""
        ...

    def answered(self) -> None:
        """A request was answered after all."""
        ...

    def poll_problem(self) -> str | None:
        """The problem of the backend itself; empty once it is solved, None if nothing changed."""
        ...

    def close(self) -> None: ...
