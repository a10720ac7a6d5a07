"""What the user declares: an App with topics, tables, handlers and resources. Declarations only; nothing runs.

Every name given here is part of a durable name, so none is ever inferred. A mistake raises ConfigError when
it is declared, not when the first record arrives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, overload

from typing_extensions import TypeForm

from pipeline.codecs import CodecName, resolve_value
from pipeline.context import Context
from pipeline.core.names import GroupId, check_name, held_by_the_pipeline
from pipeline.declarations import Dedup, Resource, TableDef, Topic
from pipeline.errors import ConfigError
from pipeline.event import Batch, Event
from pipeline.keys import resolve_key
from pipeline.own_codecs import Codec, MessageCodec
from pipeline.sinks.declared import Sink

__all__ = ["App", "Binding", "Group", "OnError", "SinkBinding"]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

OnError = Literal["stop", "skip", "dead_letter"]
MAIN_GROUP = "main"
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAY_S = 60.0
LONGEST_RETRY_DELAY_S = 3600


class Binding:
    """One handler of one input topic. `batch`: it takes a Batch."""

    __slots__ = ("batch", "function", "on_error", "retries", "retry_delay_s", "topic")

    def __init__(
        self,
        topic: Topic[Any, Any],
        function: Callable[..., None],
        on_error: OnError,
        batch: bool,
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> None:
        self.topic = topic
        self.function = function
        self.on_error = on_error
        self.batch = batch
        self.retries = retries
        self.retry_delay_s = retry_delay_s

    def retry_wait_s(self, failures: int) -> float:
        """How long to wait after so many failures of a record: twice as long each time, up to a minute."""
        longest = max(MAX_RETRY_DELAY_S, self.retry_delay_s)
        doubled: float = self.retry_delay_s * 2 ** min(failures - 1, 30)
        return min(doubled, longest)


class SinkBinding(NamedTuple):
    """One sink of one input topic."""

    topic: Topic[Any, Any]
    sink: Sink[Any, Any]
    on_error: OnError


class _Handler(Protocol[K, V]):
    def __call__(
        self, function: Callable[[Event[K, V], Context], None], /
    ) -> Callable[[Event[K, V], Context], None]: ...


class _BatchHandler(Protocol[K, V]):
    def __call__(
        self, function: Callable[[Batch[K, V], Context], None], /
    ) -> Callable[[Batch[K, V], Context], None]: ...


class Group:
    """Handlers that share tables and whose input topics are co-partitioned."""

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self.name = check_name("group", name)
        self.bindings: list[Binding] = []
        self.sinks: list[SinkBinding] = []
        self.tables: dict[str, TableDef[Any, Any]] = {}

    @property
    def id(self) -> GroupId:
        return GroupId(self._app.app_name, self.name)

    @property
    def inputs(self) -> list[Topic[Any, Any]]:
        """Input topics in the order of their first handler or sink."""
        return list(dict.fromkeys([b.topic for b in self.bindings] + [b.topic for b in self.sinks]))

    def table(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        codec: Codec[V] | CodecName | None = None,
        upgrade: Callable[[Any], V] | None = None,
    ) -> TableDef[K, V]:
        """Declare a table. Its keys live where their records do: a task sees its own partition's only.

        upgrade: makes a value of today's type from one that was stored under another. It gets what the JSON
        or msgpack says (a dict for a Struct), or bytes from any other codec. Without it a changed type is
        refused at start. It runs once for each row, before any handler; what it returns is committed as one.
        """
        check_name("table", name)
        where = f"table {self.name}.{name}"
        if name in self.tables:
            raise ConfigError(f"{where} is declared twice")
        if self.sinks:
            raise self._mixed(f"a table, {name}")
        if upgrade is not None and not callable(upgrade):
            raise ConfigError(f"{where}: upgrade is {upgrade!r}; it must be a function of the old value")
        table: TableDef[K, V] = TableDef(
            self.name,
            name,
            resolve_key(key, where, tombstones=False),
            resolve_value(value, codec, where, tombstones=False),
            upgrade,
        )
        self.tables[name] = table
        return table

    def handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> _Handler[K, V]:
        """Register a function for each record of `topic`. Several handlers of a topic run in this order.

        on_error: what to do with a record that raises: `stop` its task, `skip` it, or send it to the group's
        dead-letter topic. In each case the record leaves nothing else behind.
        retries: how often a record that raises is tried again before that. The records behind it in its
        partition wait; other partitions do not.
        retry_delay_s: seconds before the first retry; each further one waits twice as long, up to a minute.
        """

        def register(
            function: Callable[[Event[K, V], Context], None],
        ) -> Callable[[Event[K, V], Context], None]:
            self._bind(Binding(topic, function, on_error, False, retries, retry_delay_s))
            return function

        self._check_topic(topic, "handler")
        return register

    def batch_handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> _BatchHandler[K, V]:
        """Register a function for batches of `topic`. On error a batch is undone and halved.

        The record that is found guilty, alone in its batch, gets what `handler` says of `on_error`, `retries`
        and `retry_delay_s`.
        """

        def register(
            function: Callable[[Batch[K, V], Context], None],
        ) -> Callable[[Batch[K, V], Context], None]:
            self._bind(Binding(topic, function, on_error, True, retries, retry_delay_s))
            return function

        self._check_topic(topic, "batch_handler")
        return register

    def sink(self, topic: Topic[K, V], to: Sink[K, V], *, on_error: OnError = "stop") -> None:
        """Write rows of `topic` to a database, exactly once: rows and positions are one transaction there.

        A group has handlers or sinks: its positions are in one place. Its input topics are co-partitioned; its sinks
        write to one database. Sinks of one topic write in the order in which they were declared.
        on_error: what to do with a record whose row cannot be made, or is refused: `stop` its task, or `skip` it.
        """
        where = f"group {self.name}"
        self._check_topic(topic, "group(...).sink")
        if not isinstance(to, Sink):
            raise ConfigError(f"{where}: {to!r} is no sink", hint="use pipeline.Postgres or pipeline.Sqlite")
        if self.bindings or self.tables:
            raise self._mixed(f"a sink, {to!r}")
        if on_error == "dead_letter":
            raise ConfigError(
                f"{where}: a sink has no dead letters: its positions are in the database, and a Kafka transaction "
                "and one of the database cannot be one",
                hint="let a handler in another group check records first, with on_error='dead_letter'; or 'skip'",
            )
        if on_error not in {"stop", "skip"}:
            raise ConfigError(f"{where}: on_error is {on_error!r}; for a sink it must be stop or skip")
        if not self._app.owns(topic):
            raise ConfigError(f"{where}: topic {topic.name} belongs to another app")
        if topic.dedup is not None:
            raise ConfigError(
                f"{where}: topic {topic.name} drops duplicates by their ids, and a sink remembers no ids",
                hint="let a handler of another group send what remains to a topic of its own, and write that one",
            )
        other = next(
            (b.sink for b in self.sinks if (b.sink.engine, b.sink.address) != (to.engine, to.address)), None
        )
        if other is not None:
            raise ConfigError(
                f"{where}: {to!r} and {other!r} are in different databases, and cannot be one transaction",
                hint="declare app.group(...) for each database; write the same DSN for the same one",
            )
        self.sinks.append(SinkBinding(topic, to, on_error))

    def _mixed(self, what: str) -> ConfigError:
        return ConfigError(
            f"group {self.name} has {'sinks' if self.sinks else 'handlers or tables'} and cannot have {what}: "
            "the positions of a group are either in its journal or in a database",
            hint='declare a group of its own for sinks: app.group("rows").sink(...)',
        )

    def _check_topic(self, topic: object, method: str) -> None:
        if not isinstance(topic, Topic):
            raise ConfigError(
                f"group {self.name}: {topic!r} is no topic",
                hint=f"use @app.{method}(topic) above the function"
                if "sink" not in method
                else f"use app.{method}(topic, ...)",
            )

    def _bind(self, binding: Binding) -> None:
        function = binding.function
        if self.sinks:
            raise self._mixed("a handler")
        if not callable(function):
            raise ConfigError(f"group {self.name}: the handler {function!r} is no function")
        if any(kind(function) for kind in _NOT_RUN_BY_A_CALL):
            raise ConfigError(
                f"group {self.name}: {function.__qualname__} is async or a generator, and would not run",
                hint="write a plain function",
            )
        _check_arguments(self.name, function)
        if binding.on_error not in {"stop", "skip", "dead_letter"}:
            raise ConfigError(
                f"group {self.name}: on_error is {binding.on_error!r}; it must be stop, skip or dead_letter"
            )
        _check_retries(self.name, binding)
        if not self._app.owns(binding.topic):
            raise ConfigError(f"group {self.name}: topic {binding.topic.name} belongs to another app")
        if binding.on_error == "dead_letter" and binding.topic.name == self.id.dead_letter_topic:
            raise ConfigError(
                f"group {self.name} reads its own dead letters: one that fails would come back for ever",
                hint="declare on_error='stop' or 'skip' for that handler, or read them in another group",
            )
        others = [b for b in self.bindings if b.topic is binding.topic]
        if others and (binding.batch or others[0].batch):
            raise ConfigError(
                f"group {self.name}: topic {binding.topic.name} has a batch handler; it must be the only one"
            )
        self.bindings.append(binding)


def _check_retries(group: str, binding: Binding) -> None:
    retries, delay_s = binding.retries, binding.retry_delay_s
    if type(retries) is not int or retries < 0:
        raise ConfigError(f"group {group}: retries is {retries!r}; it must be a whole number, 0 or above")
    if type(delay_s) not in {int, float} or not 0 <= delay_s <= LONGEST_RETRY_DELAY_S:
        raise ConfigError(
            f"group {group}: retry_delay_s is {delay_s!r}; it must be a number of seconds, 0 to {LONGEST_RETRY_DELAY_S}"
        )


def _check_arguments(group: str, function: Callable[..., None]) -> None:
    """Found here, a missing argument stops the start; later it would fail every record."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have none to look at
    try:
        signature.bind(None, None)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ConfigError(
            f"group {group}: {name}{signature} cannot be called with an event (or a batch) and a context: {error}",
            hint="give it two parameters, as in def handle(event, ctx)",
        ) from None


class App(Group):
    """A stream-processing application; it is itself the handler group `main`."""

    def __init__(self, name: str) -> None:
        self.app_name = check_name("app", name)
        self.topics: dict[str, Topic[Any, Any]] = {}
        self._groups: dict[str, Group] = {}
        super().__init__(self, MAIN_GROUP)

    @overload
    def topic(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[K, V] | None = None,
    ) -> Topic[K, V]: ...

    @overload
    def topic(
        self,
        name: str,
        *,
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[None, V] | None = None,
    ) -> Topic[None, V]: ...

    def topic(
        self, name: str, *, key: Any = None, value: Any, codec: Any = None, dedup: Any = None
    ) -> Topic[Any, Any]:
        """Declare a topic. Without `key` its records have none, and any that arrives is ignored.

        codec: how values become bytes: `json` (default), `msgpack`, `raw` (bytes, whose default it is), or an object
        with `encode(value)` and `decode(data)` or `decode(data, message)`.
        dedup: handlers of the topic get each event once, though it was sent several times; see `Dedup`.
        """
        where = f"topic {name}"
        if not name or len(name) > 249 or name in {".", ".."} or set(name) - _TOPIC_LETTERS:
            raise ConfigError(f"{where}: not a topic name Kafka accepts (letters, digits, '.', '_' and '-')")
        held = held_by_the_pipeline(name)
        if held:
            raise ConfigError(f"{where} {held}", hint="declare a topic of your own")
        if name in self.topics:
            raise ConfigError(f"{where} is declared twice")
        topic: Topic[Any, Any] = Topic(
            name,
            resolve_key(key, where, tombstones=True),
            resolve_value(value, codec, where, tombstones=True),
            self._checked(dedup, where),
        )
        self.topics[name] = topic
        return topic

    def _checked(self, dedup: Any, where: str) -> Dedup[Any, Any] | None:
        if dedup is None:
            return None
        if not isinstance(dedup, Dedup):
            raise ConfigError(
                f"{where}: dedup is {dedup!r}; it must be a Dedup", hint="dedup=Dedup(ttl_s=...)"
            )
        target = dedup.duplicates_to
        if target is not None and not self.owns(target):
            raise ConfigError(f"{where}: duplicates_to is topic {target.name} of another app")
        return dedup

    def owns(self, topic: Topic[Any, Any]) -> bool:
        return self.topics.get(topic.name) is topic

    def group(self, name: str) -> Group:
        """Declare another handler group, with tables, positions and commits of its own."""
        if name == MAIN_GROUP or name in self._groups:
            raise ConfigError(f"group {name} is declared twice")
        group = Group(self, name)
        self._groups[name] = group
        return group

    def resource(self, factory: Callable[[], R]) -> Resource[R]:
        """Declare a resource: `ctx.resource(r)` gives what `factory()` returned in this worker."""
        if not callable(factory):
            raise ConfigError(
                f"app.resource takes a function that makes the resource, not {factory!r}",
                hint="app.resource(lambda: Pool(...)): each worker makes its own, when it is first asked for",
            )
        return Resource(factory)

    @property
    def groups(self) -> list[Group]:
        """Groups that have handlers or sinks, `main` first."""
        return [group for group in (self, *self._groups.values()) if group.bindings or group.sinks]


# Calling such a function runs nothing of it.
_NOT_RUN_BY_A_CALL = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)
_TOPIC_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
