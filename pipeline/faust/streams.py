"""What an agent iterates over: `EngineStream`, a Faust Stream whose events come from the handler; and its `Chain`.

The agent asks for the next event by yielding `NEXT`; the handler answers by sending the value. Processors, such as
those of `filter` and `echo`, run inside the agent's coroutine, as in Faust.

`group_by` and `through` give a stream of another topic, which the agent iterates over instead. A chain has these
streams in order:

    stream 0, of the agent's topic --forwards each event--> stream 1, of a repartition topic --> ... --> the agent

As in Faust, the processors of a stream move to the stream that is derived from it: they run after the repartition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from inspect import isawaitable
from types import coroutine
from typing import Any, NamedTuple, NoReturn

from faust.agents.models import ReqRepRequest
from faust.exceptions import Skip
from faust.streams import Stream, maybe_forward
from faust.types import TopicT
from faust.types.models import FieldDescriptorT
from mode import want_seconds

from pipeline.errors import ConfigError
from pipeline.faust.agent_loop import NEXT

__all__ = ["Chain", "Derived", "EngineStream", "Taking", "drained"]


class Derived(NamedTuple):
    """A stream that `group_by` or `through` has made.

    `topic`: that of Faust. `copartitioned`: the topic is internal, so it gets as many partitions as its source.
    """

    topic: Any
    copartitioned: bool


class Taking(NamedTuple):
    """A batch that an agent asks for. `most`: events. `within_s`: for how long events are held; None: without limit."""

    most: int
    within_s: float | None
    values: Callable[[list[Any]], list[Any]]


class Chain:
    """The streams of one agent.

    `streams`: in order; the agent iterates over the last one. `take`: of the batches that it takes, the first ones.
    """

    def __init__(self, app: Any, agent: Any, declared: Sequence[Derived] | None, takes: bool = True) -> None:
        """`declared`: what the agent derived when the app was loaded; None while it is loaded. `takes`: the same."""
        self.agent = agent
        self.take: Taking | None = None
        self._app = app
        self._declared = declared
        self._takes = takes
        self.derived: list[Derived] = []
        self.streams: list[EngineStream] = [EngineStream(app, agent.channel, agent.name, self)]

    def derive(self, source: EngineStream, made: Derived, method: str) -> EngineStream:
        """The stream that follows `source`. Raises ConfigError."""
        if self.agent.concurrency > 1:
            raise ConfigError(
                f"agent {self.agent.name} has concurrency={self.agent.concurrency} and calls {method}, which Faust "
                "refuses",
                hint="leave concurrency out",
            )
        if source is not self.streams[-1]:
            raise ConfigError(
                f"agent {self.agent.name} calls {method} of a stream from which another one is derived already",
                hint="iterate over one stream in each agent",
            )
        number, declared = len(self.derived), self._declared
        if declared is not None:
            if number >= len(declared) or list(declared[number].topic.topics) != list(made.topic.topics):
                raise self._unseen(method)
            made = declared[number]
        self.derived.append(made)
        stream = EngineStream(self._app, made.topic, self.agent.name, self)
        stream.takes_over(source)
        self.streams.append(stream)
        return stream

    def takes(self, taking: Taking, method: str) -> None:
        """The agent asks for batches. Raises ConfigError."""
        if not self._takes:
            raise self._unseen(method)
        if self.take is None:
            self.take = taking

    def _unseen(self, method: str) -> ConfigError:
        return ConfigError(
            f"agent {self.agent.name} calls {method} in a way that was not seen when the app was loaded",
            hint=f"call {method} in the agent's own function, before its loop, with the same arguments at each start",
        )


@coroutine
def _next_value() -> Generator[Any, Any, Any]:
    """Wait for the next event. Returns its value."""
    return (yield NEXT)


def _values(events: list[Any]) -> list[Any]:
    values = [event.value for event in events]
    return [value.value if isinstance(value, ReqRepRequest) else value for value in values]


async def drained(stream: EngineStream) -> None:
    """Iterate over a stream for its processors."""
    async for _ in stream:
        pass


class EngineStream(Stream):
    """A stream of one agent in one task.

    `current_event`: the event that the agent was given last. `taking`: what the agent waits for, if that is a batch.
    `passed`: whether the last event has passed all processors. `changes_values`: whether one of these may change it.
    """

    def __init__(self, app: Any, channel: Any, prefix: str, chain: Chain) -> None:
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
        self.taking: Taking | None = None
        self.passed = True
        self.changes_values = False
        self._chain = chain
        self._processors: list[Callable[[Any], Any]] = []
        self._next = self._prev = None
        self._take: Callable[[], Awaitable[Any]] = _next_value

    def __repr__(self) -> str:
        return f"<Stream: {self.channel}>"

    def __aiter__(self) -> EngineStream:
        return self

    def __anext__(self) -> Awaitable[Any]:
        return self._take()

    @property
    def has_processors(self) -> bool:
        """Whether values go through functions."""
        return bool(self._processors)

    def takes_over(self, source: EngineStream) -> None:
        """Move the processors of another stream to this one, which is derived from it."""
        self._processors, source._processors = source._processors, []
        self.changes_values, source.changes_values = source.changes_values, False
        for stream in (self, source):
            stream._take = stream._processed if stream._processors else _next_value  # noqa: SLF001 - of this class

    def add_processor(self, processor: Callable[[Any], Any]) -> None:
        """Call a function with each value. Its result, awaited if need be, is what the agent gets."""
        self.changes_values = True
        self._add(processor)

    def filter(self, fun: Callable[[Any], Any]) -> EngineStream:
        """Skip the values for which a function, awaited if need be, returns nothing true."""

        async def kept(value: Any) -> Any:
            passes = fun(value)
            if not (await passes if isawaitable(passes) else passes):
                raise Skip
            return value

        self._add(kept)
        return self

    def _add(self, processor: Callable[[Any], Any]) -> None:
        self._processors.append(processor)
        self._take = self._processed

    async def _processed(self) -> Any:
        while True:
            value = await _next_value()
            self.passed = False
            try:
                for processor in self._processors:
                    value = processor(value)
                    if isawaitable(value):
                        value = await value
            except Skip:
                continue
            self.passed = True
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

    def noack(self) -> EngineStream:
        """The same stream: an event is finished when the agent asks for the next one."""
        return self

    def take(self, max_: int, within: Any) -> AsyncIterator[list[Any]]:
        """Lists of at most `max_` values of one partition, none of which waits for longer than `within`."""
        return self._batches("take", max_, within, _values)

    def take_events(self, max_: int, within: Any) -> AsyncIterator[list[Any]]:
        """As `take`, with events."""
        return self._batches("take_events", max_, within, list)

    def noack_take(self, max_: int, within: Any) -> AsyncIterator[list[Any]]:
        """As `take_events`, which Faust has for events that are acknowledged later."""
        return self._batches("noack_take", max_, within, list)

    def take_with_timestamp(
        self, max_: int, within: Any, timestamp_field_name: str
    ) -> AsyncIterator[list[Any]]:
        """As `take`, with the time of the event in a field of each dict."""

        def values(events: list[Any]) -> list[Any]:
            for event in events:
                if isinstance(event.value, dict) and timestamp_field_name:
                    event.value[timestamp_field_name] = event.message.timestamp
            return _values(events)

        return self._batches("take_with_timestamp", max_, within, values)

    async def _batches(
        self, method: str, most: int, within: Any, values: Callable[[list[Any]], list[Any]]
    ) -> AsyncIterator[list[Any]]:
        if self.changes_values:
            raise ConfigError(
                f"agent {self._chain.agent.name} calls add_processor and {method}: events are held as they came",
                hint="change the values in the loop over the batches; filter and echo may be used",
            )
        if most < 1:
            raise ConfigError(
                f"agent {self._chain.agent.name} takes {most} values at a time; it must be 1 or more"
            )
        taking = Taking(most, want_seconds(within) if within else None, values)
        self._chain.takes(taking, method)
        while True:
            self.taking = taking
            yield await _next_value()

    def group_by(
        self, key: Any, *, name: str | None = None, topic: Any = None, partitions: int | None = None
    ) -> EngineStream:
        """The stream of a topic to which each event is sent with another key."""
        if not name:
            if not isinstance(key, FieldDescriptorT):
                raise TypeError(f"agent {self._chain.agent.name}: group_by with a function needs name=")
            name = key.ident
        made = (
            Derived(topic, copartitioned=False) if topic is not None else self._repartition(name, partitions)
        )

        async def repartition(value: Any) -> Any:
            event: Any = self.current_event
            if isinstance(key, FieldDescriptorT):
                new_key = key.getattr(value)
            else:
                new_key = key(value)
                if isawaitable(new_key):
                    new_key = await new_key
            await event.forward(derived.channel, key=new_key)
            return value

        derived = self._chain.derive(self, made, "group_by")
        self._add(repartition)
        return derived

    def through(self, channel: Any) -> EngineStream:
        """The stream of a topic to which each event is sent as it is."""
        target = self.derive_topic(channel) if isinstance(channel, str) else channel
        if not isinstance(target, TopicT):
            raise ConfigError(
                f"agent {self._chain.agent.name} sends its stream through the channel {target!r}, which is in memory: "
                "its events would be lost in a crash",
                hint='use a topic: stream.through(app.topic("name"))',
            )
        derived = self._chain.derive(self, Derived(target, copartitioned=False), "through")

        async def forward(value: Any) -> Any:
            event: Any = self.current_event
            await event.forward(derived.channel)
            return value

        self._add(forward)
        return derived

    def _repartition(self, name: str, partitions: int | None) -> Derived:
        """The topic that Faust would use."""
        source = self.channel
        if len(source.topics) != 1:
            raise ConfigError(
                f"agent {self._chain.agent.name} reads the topics {', '.join(source.topics)} and calls group_by, whose "
                "repartition topic is named after one",
                hint='name the topic yourself: group_by(key, topic=app.topic("name"))',
            )
        prefix = f"{self.prefix}-" if self.prefix and not source.has_prefix else ""
        made = source.derive(
            prefix=prefix,
            suffix=f"-{name}-repartition",
            partitions=partitions or self.app.conf.topic_partitions,
            internal=True,
        )
        return Derived(made, copartitioned=not partitions)

    def echo(self, *channels: Any) -> EngineStream:
        """Send each value to other channels, too."""
        targets = [self.derive_topic(each) if isinstance(each, str) else each for each in channels]

        async def echoing(value: Any) -> Any:
            for target in targets:
                await maybe_forward(value, target)
            return value

        self._add(echoing)
        return self

    async def ack(self, event: Any) -> bool:  # noqa: ARG002 - as Faust calls it
        """Nothing: an event is finished when the agent asks for the next one."""
        return False

    def _refused(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError(
            f"agent {self.prefix} joins or combines streams, which Faust itself does not implement",
            hint="give each topic an agent, and join through a table",
        )

    combine = __and__ = _refused
    join = left_join = inner_join = outer_join = _refused
