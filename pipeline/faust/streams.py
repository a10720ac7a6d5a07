"""What an agent iterates over: `EngineStream`, a Faust Stream whose events come from the handler.

The agent asks for the next event by yielding `NEXT`; the handler answers by sending the value. Processors, such as
those of `filter` and `echo`, run inside the agent's coroutine, as in Faust.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from inspect import isawaitable
from types import coroutine
from typing import Any, NoReturn

from faust.exceptions import Skip
from faust.streams import Stream, maybe_forward

from pipeline.errors import ConfigError
from pipeline.faust.agent_loop import NEXT

__all__ = ["EngineStream"]


@coroutine
def _next_value() -> Generator[Any, Any, Any]:
    """Wait for the next event. Returns its value."""
    return (yield NEXT)


class EngineStream(Stream):
    """The stream of one agent in one task. `current_event`: the event that the agent was given last."""

    def __init__(self, app: Any, channel: Any, prefix: str) -> None:
        # Not that of Stream: it makes queues and events of asyncio for a consumer that is not started.
        self.app = app
        self.channel = channel
        self.prefix = prefix
        self.current_event: Any = None
        self.concurrency_index = None
        self.active_partitions = None
        self.enable_acks = True
        self.combined: list[Any] = []
        self.join_strategy = None
        self.task_owner = None
        self._processors: list[Callable[[Any], Any]] = []
        self._next = self._prev = None
        self._take: Callable[[], Awaitable[Any]] = _next_value

    def __repr__(self) -> str:
        return f"<Stream: {self.channel}>"

    def __aiter__(self) -> EngineStream:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self._take()

    def add_processor(self, processor: Callable[[Any], Any]) -> None:
        """Call a function with each value. Its result, awaited if need be, is what the agent gets."""
        self._processors.append(processor)
        self._take = self._processed

    async def _processed(self) -> Any:
        while True:
            value = await _next_value()
            try:
                for processor in self._processors:
                    value = processor(value)
                    if isawaitable(value):
                        value = await value
            except Skip:
                continue
            return value

    async def events(self) -> AsyncIterator[Any]:
        """The events, with key, value, headers and message."""
        async for _ in self:
            yield self.current_event

    async def items(self) -> AsyncIterator[tuple[Any, Any]]:
        """Keys and values."""
        async for _ in self:
            event: Any = self.current_event
            yield event.key, event.value

    def echo(self, *channels: Any) -> EngineStream:
        """Send each value to other channels, too."""
        targets = [self.derive_topic(each) if isinstance(each, str) else each for each in channels]

        async def echoing(value: Any) -> Any:
            for target in targets:
                await maybe_forward(value, target)
            return value

        self.add_processor(echoing)
        return self

    async def ack(self, event: Any) -> bool:  # noqa: ARG002 - as Faust calls it
        """Nothing: an event is finished when the agent asks for the next one."""
        return False

    def noack(self) -> EngineStream:
        """The stream itself: an event is finished when the agent asks for the next one, acknowledged or not."""
        return self

    def _refused(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError(
            f"agent {self.prefix}: this method of its stream is not carried over from Faust",
            hint="docs/how-to/faust.md lists what is",
        )

    noack_take = take = take_events = take_with_timestamp = _refused
    through = group_by = combine = __and__ = _refused
    join = left_join = inner_join = outer_join = _refused
