"""Calls an async handler like a plain one, for `pipeline debug`: `as_plain`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from pipeline.api.async_context import AsyncContext
from pipeline.api.context import RuntimeContext
from pipeline.api.event import Event

__all__ = ["as_plain"]


def as_plain(
    function: Callable[..., Coroutine[Any, Any, None]], runner: asyncio.Runner
) -> Callable[[Event[Any, Any], RuntimeContext], None]:
    """The handler as a function of an event and the context of a task. It has no time-out."""

    @wraps(function)
    def call(event: Event[Any, Any], context: RuntimeContext) -> None:
        alone = _Alone(event, context)
        try:
            runner.run(function(event, alone))
        finally:
            alone.settle(context)

    return call


class _Alone(AsyncContext):
    """The context of the only call that runs."""

    __slots__ = ()

    def __init__(self, event: Event[Any, Any], context: RuntimeContext) -> None:
        self._message = context.message
        self._event_ms = None
        self._outputs = []
        self._resources = context.resources
        self._senders = context.senders
        self._used = context.used
        self._written = None
        self._event = event
        self._key = event.key
        self._earlier = {}
        self._tables = {table.definition: table for table in context.tables}

    def settle(self, context: RuntimeContext) -> None:
        """Move writes and outputs to the context of the task, which rolls them back after an error."""
        for table, (data, _) in (self._written or {}).items():
            if data is not None:
                table[self._key] = table.definition.value.decode(data)
            elif self._key in table:
                del table[self._key]
        context.outputs.extend(self._end())
