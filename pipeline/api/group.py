"""Handlers and sinks that share positions: a `Group`. Declarations only; nothing runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from typing_extensions import TypeForm

from pipeline.api.bindings import RETRY_DELAY_S, Binding, OnError, SinkBinding, check_function, check_retries
from pipeline.api.codecs import CodecName, resolve_value
from pipeline.api.context import Context
from pipeline.api.custom_codecs import Codec
from pipeline.api.declarations import Table, Topic
from pipeline.api.event import Batch, Event
from pipeline.api.keys import resolve_key
from pipeline.api.sinks import Sink
from pipeline.core.names import GroupId, check_name
from pipeline.errors import ConfigError

__all__ = ["Group"]

K = TypeVar("K")
V = TypeVar("V")


class _Handler(Protocol[K, V]):
    def __call__(
        self, function: Callable[[Event[K, V], Context], None], /
    ) -> Callable[[Event[K, V], Context], None]: ...


class _BatchHandler(Protocol[K, V]):
    def __call__(
        self, function: Callable[[Batch[K, V], Context], None], /
    ) -> Callable[[Batch[K, V], Context], None]: ...


class _App(Protocol):
    """The app that a group is declared in."""

    app_name: str

    def owns(self, topic: Topic[Any, Any]) -> bool: ...


class Group:
    """Handlers that share tables and whose input topics are co-partitioned."""

    def __init__(self, app: _App, name: str) -> None:
        self._app = app
        self.name = check_name("group", name)
        self.bindings: list[Binding] = []
        self.sinks: list[SinkBinding] = []
        self.tables: dict[str, Table[Any, Any]] = {}

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
    ) -> Table[K, V]:
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
        table: Table[K, V] = Table(
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
        if self.sinks:
            raise self._mixed("a handler")
        check_function(self.name, binding.function)
        if binding.on_error not in {"stop", "skip", "dead_letter"}:
            raise ConfigError(
                f"group {self.name}: on_error is {binding.on_error!r}; it must be stop, skip or dead_letter"
            )
        check_retries(self.name, binding)
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
