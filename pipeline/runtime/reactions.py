"""The reaction to an error that ends a task: `Reactions` decides, and the worker carries it out.

| the error          | and                                   | so                                                  |
|--------------------|---------------------------------------|-----------------------------------------------------|
| superseded, fenced | the worker stops                      | YIELD: another worker has the task                  |
| anything else      | the worker stops                      | FAIL                                                |
| damaged state      | the first time                        | SET_ASIDE: that state, and restore from the journal |
| damaged state      | again: the disk needs an operator     | FAIL                                                |
| superseded         |                                       | RESTORE: from the journal                           |
| refused outputs    |                                       | RESTORE: then process again, in smaller commits     |
| fenced             | live, or not too often while restored | FIND_OWNER: the journal names it                    |
| fenced             | too often while it was restored       | FAIL                                                |
| stale read         | of an input, too often at one place   | FAIL: its records are lost, or a broker is stuck    |
| outage or doubt    |                                       | RESTORE_LATER: the journal says what happened       |
| anything else      |                                       | FAIL: the other tasks continue                      |
"""

from __future__ import annotations

from enum import Enum

from pipeline.core.names import TaskId
from pipeline.errors import (
    AbortableError,
    CheckpointStoreError,
    DamagedStateError,
    FencedError,
    PipelineError,
    RefusedError,
    RetriableError,
    StaleReadError,
    SupersededError,
    UnknownOutcomeError,
    UnreachableError,
)

__all__ = ["MAX_FENCES", "Reaction", "Reactions"]

MAX_FENCES = 5
MAX_STALE = 20
_OUTAGE_OR_DOUBT = (
    UnreachableError,
    UnknownOutcomeError,
    AbortableError,
    RetriableError,
    CheckpointStoreError,
)


class Reaction(Enum):
    """See the table above."""

    YIELD = "yield"
    FAIL = "fail"
    SET_ASIDE = "set aside"
    RESTORE = "restore"
    FIND_OWNER = "look"
    RESTORE_LATER = "restore later"


class Reactions:
    """Decides for one worker. Remembers the earlier errors of its tasks."""

    def __init__(self) -> None:
        self._fences: dict[TaskId, int] = {}
        self._damaged: set[TaskId] = set()
        self._stale: dict[TaskId, tuple[str, int]] = {}

    def to(self, error: PipelineError, task: TaskId, *, live: bool, stopping: bool) -> Reaction:
        """The reaction to `error`, which ended `task` while it was `live` or being restored."""
        if stopping:
            return Reaction.YIELD if isinstance(error, FencedError | SupersededError) else Reaction.FAIL
        if isinstance(error, DamagedStateError) and task not in self._damaged:
            self._damaged.add(task)
            return Reaction.SET_ASIDE
        if isinstance(error, SupersededError | RefusedError):
            return Reaction.RESTORE
        if isinstance(error, FencedError):
            # For a live task, the journal names the new owner. Two workers that restore at once have no entry yet.
            self._fences[task] = self._fences.get(task, 0) + (not live)
            return Reaction.FAIL if self._fences[task] > MAX_FENCES else Reaction.FIND_OWNER
        if isinstance(error, StaleReadError) and live:
            before, times = self._stale.get(task, ("", 0))
            # Another message means that the task has made progress.
            times = times + 1 if before == error.message else 1
            self._stale[task] = error.message, times
            if times > MAX_STALE:
                return Reaction.FAIL
        return Reaction.RESTORE_LATER if isinstance(error, _OUTAGE_OR_DOUBT) else Reaction.FAIL

    def settled(self, task: TaskId) -> None:
        """The owner of the task is known, so the count of fences restarts at zero."""
        self._fences.pop(task, None)
