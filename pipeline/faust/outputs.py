"""Sends of agents, as part of the commit of the event that is processed: `Outputs`.

Faust calls `event._attach` for `topic.send`, `agent.send` and `agent.cast` of a running agent, because `OutputBuffer`
says that messages are attached to events; `event.send`, `event.forward` and `app.send` go through `OutputBuffer` as
well. `send_soon`, and sends with `force=True`, reach `EngineProducer`, with keys and values that are encoded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from faust.types import TP, AgentT, TopicT
from faust.types.tuples import RecordMetadata

from pipeline.api.declarations import DeclaredTopic
from pipeline.core.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.faust.current import CURRENT, Running, running
from pipeline.faust.serializers import encoder_of, plain_schema

if TYPE_CHECKING:
    from pipeline.faust.outside import OutsideSender

__all__ = ["EngineProducer", "OutputBuffer", "Outputs", "Sent", "outside"]

_UNKNOWN = -1  # as of Kafka for a producer that does not wait


class Sent:
    """What a send returns. Awaiting it gives metadata without offset and partition: the commit has not happened."""

    __slots__ = ("_topic",)

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def add_done_callback(self, callback: Any) -> None:
        """Nothing: Faust would report an offset, which is known only after the commit."""

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        yield from ()
        return RecordMetadata(
            topic=self._topic,
            partition=_UNKNOWN,
            topic_partition=TP(self._topic, _UNKNOWN),
            offset=_UNKNOWN,
            timestamp=None,
            timestamp_type=None,
        )


class _Target(NamedTuple):
    """A channel of Faust as an output: the topic of the engine, and how keys and values are encoded."""

    topic: DeclaredTopic[Any, Any]
    key: Callable[[Any], bytes | None] | None  # None: a schema of the user, which is called with the headers
    value: Callable[[Any], bytes | None]
    sent: Sent
    channel: Any


class Outputs:
    """The outputs of an app. `topics`: those of the engine, by name."""

    def __init__(self, app: Any, topics: Mapping[str, DeclaredTopic[Any, Any]]) -> None:
        self._app = app
        self._topics = topics
        self._targets: dict[Any, _Target] = {}
        self.outside: OutsideSender | None = None  # while a worker or a command of this process runs

    def send(
        self,
        channel: Any,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        schema: Any = None,
        key_serializer: Any = None,
        value_serializer: Any = None,
        callback: Any = None,
        force: bool = False,  # noqa: ARG002 - each send is part of the commit
    ) -> Awaitable[RecordMetadata]:
        """Send with the current event. Raises ConfigError, and what encoding raises."""
        agent = running()
        if agent is None:
            raise outside(f"a message is sent to {channel}")
        target = self._targets.get(channel) or self._target(channel)
        if partition is not None or callback is not None:
            _refuse(target, partition, callback)
        if target.key is None or schema is not None or key_serializer or value_serializer:
            prepared: Any = target.channel.prepare_headers(headers)
            key_data, prepared = target.channel.prepare_key(key, key_serializer, schema, prepared)
            data, prepared = target.channel.prepare_value(value, value_serializer, schema, prepared)
            headers = prepared
        else:
            key_data = None if key is None else target.key(key)
            data = target.value(value)
        self._put(agent, target.topic, key_data, data, timestamp, headers)
        return target.sent

    def send_encoded(
        self,
        name: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
    ) -> Awaitable[RecordMetadata]:
        """Send encoded key and value to a topic with the current event. Raises ConfigError."""
        agent = running()
        if agent is None:
            raise outside(f"a message is sent to {name}")
        target = self._targets.get(name) or self._target(name)
        if partition is not None:
            _refuse(target, partition, None)
        self._put(agent, target.topic, key, value, timestamp, headers)
        return target.sent

    @staticmethod
    def _put(
        agent: Running,
        topic: DeclaredTopic[Any, Any],
        key: bytes | None,
        value: bytes | None,
        timestamp: float | None,
        headers: Any,
    ) -> None:
        agent.context.send(
            topic,
            key,
            value,
            headers=_headers(headers) if headers else (),
            timestamp_ms=None if timestamp is None else int(timestamp * 1000),
        )

    def sends_outside(self) -> OutsideSender | None:
        """What sends here; None in an agent, also before its first event, and while no worker or command runs."""
        return self.outside if CURRENT.get() is None else None

    def topic_of(self, channel: Any) -> Any:
        """The topic of Faust that a channel, a name or an agent stands for. Raises ConfigError."""
        if isinstance(channel, AgentT):
            channel = channel.channel
        if isinstance(channel, str):
            channel = self._app.topic(channel)
        if not isinstance(channel, TopicT):
            raise ConfigError(
                f"{channel!r} is a channel in memory, whose messages would be lost in a crash",
                hint='send to a topic: app.topic("name")',
            )
        return channel

    def _target(self, channel: Any) -> _Target:
        """The output for a channel, which is remembered."""
        given, channel = channel, self.topic_of(channel)
        name = channel.get_topic_name()
        topic = self._topics.get(name)
        if topic is None:
            raise ConfigError(
                f"topic {name} is not known at the start of the worker{did_you_mean(name, self._topics)}",
                hint=f'keep app.topic("{name}") in a variable of a module of the app',
            )
        key, value = self._encoders(channel)
        target = self._targets[given] = _Target(topic, key, value, Sent(name), channel)
        return target

    def _encoders(self, channel: Any) -> tuple[Any, Any]:
        schema, registry = channel.schema, self._app.serializers
        if not plain_schema(self._app, schema):
            return None, None
        return (
            encoder_of(schema.key_type, schema.key_serializer, registry.key_serializer),
            encoder_of(schema.value_type, schema.value_serializer, registry.value_serializer),
        )


class OutputBuffer:
    """Takes the place of Faust's `Attachments`: each message belongs to the current event, and to its commit."""

    enabled = True

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    async def maybe_put(self, channel: Any, *args: Any, **options: Any) -> Awaitable[RecordMetadata]:
        """Send with the current event, or outside of agents with our producer."""
        if self._outputs.sends_outside():
            options.pop("force", None)
            topic = self._outputs.topic_of(channel)
            sent: Awaitable[RecordMetadata] = await topic._send_now(*args, **options)  # noqa: SLF001 - as Faust calls it
            return sent
        return self._outputs.send(channel, *args, **options)

    def put(self, message: Any, channel: Any, *args: Any, **options: Any) -> Awaitable[RecordMetadata]:  # noqa: ARG002
        """Send with the current event."""
        return self._outputs.send(channel, *args, **options)


class EngineProducer:
    """Takes the place of Faust's producer, for messages that are encoded already."""

    started = False  # commands of Faust would stop it

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    async def maybe_start(self) -> None:
        """Nothing: the engine produces."""

    async def flush(self) -> None:
        """Nothing: the commit of the event flushes."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,  # noqa: ARG002 - as Faust calls it
    ) -> Awaitable[RecordMetadata]:
        """Send with the current event, or outside of agents with our producer."""
        sender = self._outputs.sends_outside()
        if sender is not None:
            if partition is not None:
                raise _no_partition(partition, topic)
            return await sender.send(topic, key, value, timestamp, _headers(headers) if headers else ())
        return self._outputs.send_encoded(topic, key, value, partition, timestamp, headers)

    send_and_wait = send

    def send_soon(self, fut: Any) -> None:
        """Send with the current event a message that `topic.send_soon` has made."""
        message = fut.message
        sender = self._outputs.sends_outside()
        if sender is not None:
            name = message.channel.get_topic_name()
            if message.partition is not None:
                raise _no_partition(message.partition, name)
            headers = _headers(message.headers) if message.headers else ()
            sender.send_soon(name, message.key, message.value, message.timestamp, headers, fut)
            return
        if message.callback is not None:
            raise _no_callback(str(message.channel))
        self._outputs.send_encoded(
            message.channel.get_topic_name(),
            message.key,
            message.value,
            message.partition,
            message.timestamp,
            message.headers,
        )


def outside(what: str) -> ConfigError:
    """The error of what is done outside of an event."""
    return ConfigError(
        f"{what} outside of an event: no commit would contain it",
        hint="do it in an agent, in the loop over its stream",
    )


def _headers(headers: Any) -> list[tuple[str, bytes | None]]:
    pairs: Sequence[tuple[str, Any]] = list(headers.items()) if isinstance(headers, Mapping) else headers
    return [(name, content.encode() if type(content) is str else content) for name, content in pairs]


def _refuse(target: _Target, partition: int | None, callback: Any) -> NoReturn:
    if callback is not None:
        raise _no_callback(target.topic.name)
    raise _no_partition(partition, target.topic.name)


def _no_partition(partition: int | None, topic: str) -> ConfigError:
    return ConfigError(
        f"a message is sent to partition {partition} of topic {topic}: partition= is not carried over from Faust",
        hint="leave it out, and send with a key: Kafka's partitioner chooses the same partition as Faust's",
    )


def _no_callback(topic: str) -> ConfigError:
    return ConfigError(
        f"a message is sent to {topic} with callback=, whose offset is known only after the commit",
        hint="leave callback= out",
    )
