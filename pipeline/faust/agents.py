"""One agent of Faust in one task: `AgentPlan`, which makes the handler, and `AgentInstance`, which steps the agent.

The agent is a coroutine that asks for events. The handler of a record decodes it, gives the event to the agent, and
returns when the agent asks for the next one: then all that the agent has written and sent belongs to the record, and to
its commit. If the agent raises, the handler raises: the record is undone, and the next event goes to a new coroutine.

    handler called --> decode --> agent.send(value) --> ... --> the agent asks --> changed values stored --> returns
                                        |                            ^
                                        +-- really waits -- the loop runs (`agent_loop`)

Variables of the agent are no state: they end with the process, and with an error of the agent, as in Faust.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine
from contextvars import copy_context
from inspect import isawaitable
from typing import Any

import faust.agents.agent
import faust.streams
from faust.agents.models import ReqRepRequest
from faust.types import AgentT, ChannelT

from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import Resource
from pipeline.api.event import Event
from pipeline.api.ticks import Tick
from pipeline.core.headers import headers_of
from pipeline.errors import ConfigError
from pipeline.faust.agent_loop import AgentLoop, AgentReturned, AgentTask
from pipeline.faust.current import CURRENT, Changed
from pipeline.faust.events import EngineEvent
from pipeline.faust.held import HeldEvents, HeldRecord
from pipeline.faust.outputs import Outputs
from pipeline.faust.serializers import Decoder, decoder_of
from pipeline.faust.shapes import Shape
from pipeline.faust.streams import Chain, EngineStream, Taking, drained
from pipeline.ports import Record

__all__ = ["AgentInstance", "AgentPlan"]

Handler = Callable[[Event[Any, Any], RuntimeContext], None]


class AgentPlan:
    """An agent of an app.

    `loop`: the event loop of the worker. `outputs`: where its messages go. `shape`: what it derives from its stream.
    `held`: the table of the events that it takes in batches; None if it takes none.
    """

    def __init__(
        self,
        agent: Any,
        app: Any,
        outputs: Outputs,
        loop: Resource[AgentLoop],
        shape: Shape,
        held: HeldEvents | None,
    ) -> None:
        self.agent = agent
        self.app = app
        self.outputs = outputs
        self.loop = loop
        self.shape = shape
        self.held = held
        self.decoders: dict[str, Decoder] = {}  # by topic

    @property
    def topics(self) -> list[Any]:
        """The topics of its streams, of Faust: first its own."""
        return [self.agent.channel, *(derived.topic for derived in self.shape.derived)]

    def handler(self, number: int) -> Handler:
        """The handler of the topic of a stream of the agent, for records of bytes. `number`: of the stream."""
        topic = self.topics[number]
        decoder = decoder_of(self.app, topic)
        self.decoders.update(dict.fromkeys(topic.topics, decoder))
        isolated = self.agent.isolated_partitions
        step = self._step(number, decoder)

        def handle(event: Event[Any, Any], context: RuntimeContext) -> None:
            kept = context.kept
            place = (self, event.partition) if isolated else self
            instance = kept.get(place)
            if instance is None:
                instance = kept[place] = AgentInstance(self, context)
            step(instance, event)

        handle.__qualname__ = handle.__name__ = f"agent {self.agent.name}"
        return handle

    def release(self, tick: Tick, context: RuntimeContext) -> None:
        """The function of a due time: the events of the partition that are held have waited long enough."""
        held = self.held
        if held is None or not held.count(context):
            return
        kept, partition = context.kept, tick._message.partition()  # noqa: SLF001 - as of any event
        place = (self, partition) if self.agent.isolated_partitions else self
        instance = kept.get(place)
        if instance is None:
            instance = kept[place] = AgentInstance(self, context)
        instance.release(held)

    def _step(self, number: int, decoder: Decoder) -> Callable[[AgentInstance, Event[Any, Any]], None]:
        """What a record of a stream does."""
        held = self.held
        if number < len(self.shape.derived):
            return lambda instance, record: instance.forward(record, decoder, number)
        if held is not None:
            return lambda instance, record: instance.hold(record, decoder, held)
        return lambda instance, record: instance.process(record, decoder)


class AgentInstance:
    """A coroutine of an agent, in a task. The attributes are those of `Running`."""

    def __init__(self, plan: AgentPlan, context: RuntimeContext) -> None:
        self.context = context
        self.event: Any = None
        self.values: dict[tuple[Any, bytes], Changed] = {}
        self._plan = plan
        self._app = plan.app
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # None: it is to be started
        self._stream: Any = None  # what it iterates over
        self._streams: list[EngineStream] = []
        self._drains: dict[int, Coroutine[Any, Any, Any]] = {}  # those of streams for their processors
        self._ended = False
        self._context = copy_context()
        self._context.run(self._enter_context)
        self._task = AgentTask(context.resource(plan.loop), self._context)

    def process(self, record: Event[Any, Any], decoder: Decoder) -> None:
        """Give the agent an event, and return when it asks for the next one. Raises what it raises."""
        event = self._decoded(record._message, record.key, record.value, decoder)  # noqa: SLF001
        coroutine = self._coroutine or self._start()
        self._stream.current_event = event
        value = event.value
        self._step(coroutine, event, value.value if isinstance(value, ReqRepRequest) else value)

    def forward(self, record: Event[Any, Any], decoder: Decoder, number: int) -> None:
        """Give an event to a stream from which another one is derived. Raises what its processors raise."""
        event = self._decoded(record._message, record.key, record.value, decoder)  # noqa: SLF001
        self._coroutine = self._coroutine or self._start()
        self._drain(event, number)

    def hold(self, record: Event[Any, Any], decoder: Decoder, held: HeldEvents) -> None:
        """Hold an event, or give the agent the batch that it completes. Raises what the agent raises."""
        event = self._decoded(record._message, record.key, record.value, decoder)  # noqa: SLF001
        coroutine = self._coroutine or self._start()
        stream = self._stream
        if stream.has_processors:
            self._drain(event, len(self._streams) - 1)
            if not stream.passed:
                return
        count, context = held.count(self.context), self.context
        if count + 1 < self._taking().most:
            held.hold(context, count, event.message.record)
            return
        events = [*map(self._again, held.taken(context, count)), event]
        self._give(coroutine, events)

    def release(self, held: HeldEvents) -> None:
        """Give the agent the events of the current partition that are held."""
        coroutine = self._coroutine or self._start()
        self._taking()
        self._give(coroutine, [*map(self._again, held.taken(self.context, held.count(self.context)))])

    def _give(self, coroutine: Coroutine[Any, Any, Any], events: list[Any]) -> None:
        """Give the agent events, in batches of at most what it takes: fewer than when they were held, perhaps."""
        while events:
            taking = self._taking()
            batch, events = events[: taking.most], events[taking.most :]
            self._stream.current_event = batch[-1]
            self._step(coroutine, batch[-1], taking.values(batch))

    def _taking(self) -> Taking:
        """What the agent waits for. Raises ConfigError if that is an event, and not a batch."""
        taking: Taking | None = self._stream.taking
        if taking is None:
            raise ConfigError(
                f"agent {self._plan.agent.name} takes batches, and waits for a single event of the same stream",
                hint="take batches only, or iterate over events only",
            )
        return taking

    def _again(self, held: HeldRecord) -> EngineEvent:
        """The event of a record that was held."""
        decoder = self._plan.decoders.get(held.topic())
        if decoder is None:
            raise ConfigError(
                f"agent {self._plan.agent.name} holds an event of topic {held.topic()}, which it does not read",
                hint="let it read the topic until its batches are taken",
            )
        return self._decoded(held, held.key(), held.value(), decoder)

    def _drain(self, event: EngineEvent, number: int) -> None:
        """Give an event to the processors of a stream."""
        stream: Any = self._streams[number]
        coroutine = self._drains.get(number)
        if coroutine is None:
            coroutine = self._drains[number] = drained(stream)
            self._task.step(coroutine, None)
        stream.current_event = event
        value = event.value
        self._step(coroutine, event, value.value if isinstance(value, ReqRepRequest) else value)

    def _step(self, coroutine: Coroutine[Any, Any, Any], event: EngineEvent, value: Any) -> None:
        """Send a value to a coroutine, within an event."""
        self.event = event
        try:
            self._task.step(coroutine, value)
            if self.values:
                self._write_back()
        except AgentReturned:  # in this event, which is finished
            self._coroutine, self._ended = None, True
            self._write_back()
        except BaseException:
            self._coroutine = None
            raise
        finally:
            self.event = self._stream.current_event = None
            if self.values:
                self.values.clear()

    def _decoded(
        self, message: Record, key: bytes | None, value: bytes | None, decoder: Decoder
    ) -> EngineEvent:
        event = EngineEvent(self._app, None, None, message, self._plan.outputs)
        if decoder.schema is None:
            event.key, event.value = decoder.key(key), decoder.value(value)
        else:
            self._decode(event, decoder.schema)
        return event

    def _decode(self, event: EngineEvent, schema: Any) -> None:
        """By a schema of the user, which may look at the message."""
        event.key = schema.loads_key(self._app, event.message)
        empty = event.message.value is None and schema.allow_empty
        event.value = None if empty else schema.loads_value(self._app, event.message)

    def _start(self) -> Coroutine[Any, Any, Any]:
        """Make the coroutine, and run it until it asks for its first event."""
        if self._ended:
            raise self._returned()
        plan = self._plan
        chain = Chain(plan.app, plan.agent, plan.shape.derived, takes=plan.held is not None)
        self._drains = {}
        made = plan.agent.fun(chain.streams[0])
        if isinstance(made, AsyncIterable):
            coroutine: Coroutine[Any, Any, Any] = self._consume(made)
        elif plan.agent._sinks:  # noqa: SLF001 - as Faust reads it
            made.close()
            raise ConfigError(
                f"agent {plan.agent.name} has sinks, and does not yield",
                hint="let it yield what its sinks are to be given",
            )
        else:
            coroutine = made
        try:
            self._task.step(coroutine, None)
        except AgentReturned:
            raise self._returned() from None
        if len(chain.derived) != len(plan.shape.derived):
            raise ConfigError(
                f"agent {plan.agent.name} calls group_by or through in some of its starts only",
                hint="call it in each start, before the loop",
            )
        self._streams, self._stream = chain.streams, chain.streams[-1]
        self._coroutine = coroutine
        return coroutine

    async def _consume(self, results: AsyncIterable[Any]) -> None:
        """Reply, and give each result of the agent to its sinks, within the step of its event."""
        agent = self._plan.agent
        sinks = agent._sinks  # noqa: SLF001 - as Faust reads it
        async for result in results:
            event = self.event
            if event is not None:
                await self._reply(event, result)
            for sink in sinks:
                if isinstance(sink, AgentT | ChannelT):
                    await sink.send(value=result)
                else:
                    given = sink(result)
                    if isawaitable(given):
                        await given

    async def _reply(self, event: Any, result: Any) -> None:
        request = event.value
        if isinstance(request, ReqRepRequest):
            await self._plan.agent._reply(  # noqa: SLF001 - as Faust calls it
                event.key, result, request.reply_to, request.correlation_id
            )
            return
        headers = event.headers if headers_of(event.message.record) else {}
        reply_to = headers.get("Faust-Ag-ReplyTo")
        if reply_to:
            number = headers.get("Faust-Ag-CorrelationId") or b""
            await self._plan.agent._reply(event.key, result, reply_to.decode(), number.decode())  # noqa: SLF001

    def _write_back(self) -> None:
        for value in self.values.values():
            value.write_back(self.context)

    def _returned(self) -> ConfigError:
        return ConfigError(
            f"agent {self._plan.agent.name} has returned, so nothing processes its events",
            hint="let it iterate over its stream in a loop without end",
        )

    def _enter_context(self) -> None:
        """Set the variables of the context: `faust.current_event()`, `faust.current_agent()`, and ours."""
        CURRENT.set(self)
        faust.streams._current_event.set(lambda: self.event)  # noqa: SLF001 - it holds a weak reference, which is called
        faust.agents.agent._current_agent.set(self._plan.agent)  # noqa: SLF001
