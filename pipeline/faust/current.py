"""The agent that runs in the present context: `CURRENT`, and `Running`, what tables and sends need of it.

Each agent has a `contextvars.Context` of its own, in which this is set once. Its table accesses and sends belong to the
event that it is given, and so do those of asyncio tasks that it starts.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from pipeline.api.context import RuntimeContext

__all__ = ["CURRENT", "Changed", "Running", "running"]


class Changed(Protocol):
    """A value of a table that an agent may change in place. `write_back` stores it if it has changed."""

    def write_back(self, context: RuntimeContext) -> None: ...


class Running(Protocol):
    """An agent of a task.

    `context`: of its task. `event`: the event that it is given, of Faust; None outside of events. `values`: what
    tables have given out since the event began, by table and encoded key.
    """

    context: RuntimeContext
    event: Any
    values: dict[tuple[Any, bytes], Changed]


CURRENT: ContextVar[Running | None] = ContextVar("pipeline_faust_agent", default=None)


def running() -> Running | None:
    """The agent that runs in this context, while it has an event; None outside of events."""
    found = CURRENT.get()
    return None if found is None or found.event is None else found
