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
from pipeline.errors import ConfigError
from pipeline.faust.agent_loop import AgentLoop, AgentReturned, AgentTask
from pipeline.faust.current import CURRENT, Changed
from pipeline.faust.events import EngineEvent
from pipeline.faust.outputs import Outputs
from pipeline.faust.serializers import Decoder, decoder_of
from pipeline.faust.streams import EngineStream

__all__ = ["AgentInstance", "AgentPlan"]

Handler = Callable[[Event[Any, Any], RuntimeContext], None]


class AgentPlan:
    """An agent of an app. `loop`: the event loop of the worker. `outputs`: where its messages go."""

    def __init__(self, agent: Any, app: Any, outputs: Outputs, loop: Resource[AgentLoop]) -> None:
        self.agent = agent
        self.app = app
        self.outputs = outputs
        self.loop = loop

    def handler(self, topic: Any) -> Handler:
        """The handler of a topic of the agent, for records of bytes. `topic`: that of Faust."""
        decoder = decoder_of(self.app, topic)
        isolated = self.agent.isolated_partitions

        def handle(event: Event[Any, Any], context: RuntimeContext) -> None:
            kept = context.kept
            place = (self, event.partition) if isolated else self
            instance = kept.get(place)
            if instance is None:
                instance = kept[place] = AgentInstance(self, context)
            instance.process(event, decoder)

        handle.__qualname__ = handle.__name__ = f"agent {self.agent.name}"
        return handle


class AgentInstance:
    """A coroutine of an agent, in a task. The attributes are those of `Running`."""

    def __init__(self, plan: AgentPlan, context: RuntimeContext) -> None:
        self.context = context
        self.event: Any = None
        self.values: dict[tuple[Any, bytes], Changed] = {}
        self._plan = plan
        self._app = plan.app
        self._stream = EngineStream(plan.app, plan.agent.channel, plan.agent.name)
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # None: it is to be started
        self._ended = False
        self._context = copy_context()
        self._context.run(self._enter_context)
        self._task = AgentTask(context.resource(plan.loop), self._context)

    def process(self, record: Event[Any, Any], decoder: Decoder) -> None:
        """Give the agent an event, and return when it asks for the next one. Raises what it raises."""
        message = record._message  # noqa: SLF001 - a property would cost a call
        event = EngineEvent(self._app, None, None, message, self._plan.outputs)
        if decoder.schema is None:
            event.key, event.value = decoder.key(record.key), decoder.value(record.value)
        else:
            self._decode(event, decoder.schema)
        coroutine = self._coroutine or self._start()
        stream: Any = self._stream
        value = event.value
        if isinstance(value, ReqRepRequest):
            value = value.value
        self.event = stream.current_event = event
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
            self.event = stream.current_event = None
            if self.values:
                self.values.clear()

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
        stream = self._stream = EngineStream(plan.app, plan.agent.channel, plan.agent.name)
        made = plan.agent.fun(stream)
        if isinstance(made, AsyncIterable):
            coroutine: Coroutine[Any, Any, Any] = self._consume(made, stream)
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
        self._coroutine = coroutine
        return coroutine

    async def _consume(self, results: AsyncIterable[Any], stream: EngineStream) -> None:
        """Reply, and give each result of the agent to its sinks, within the step of its event."""
        agent = self._plan.agent
        sinks = agent._sinks  # noqa: SLF001 - as Faust reads it
        async for result in results:
            event = stream.current_event
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
        headers = event.headers if event.message.record.headers() else {}
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
