"""A problem that is shown to the operator, without an error: `Problem`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.names import TaskId

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, and what to do about it.

    `tasks`: the tasks that have it, if it is a problem of tasks. `cause`: then the text without their names.
    """

    text: str
    hint: str
    tasks: Sequence[TaskId] = ()
    cause: str = ""
