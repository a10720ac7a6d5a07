"""`App`, which users import: the declarations of a stream-processing application, and `run`.

An App holds a `DeclaredApp`, the object that the rest of the package reads. It is above `processes` in the layers,
because `run` starts a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import TypeForm

from pipeline.api.app import DeclaredApp
from pipeline.api.codecs import CodecName
from pipeline.api.custom_codecs import Codec, MessageCodec
from pipeline.api.declarations import Dedup, Resource, Topic
from pipeline.api.event import Event
from pipeline.api.group import Group, group_view
from pipeline.api.handler_methods import HandlerMethods
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.faust import declared_faust_app, is_faust_app

if TYPE_CHECKING:
    from pipeline.processes.embedded import RunningWorker

__all__ = ["App", "declared_app"]

K = TypeVar("K")
V = TypeVar("V")

R = TypeVar("R")


class App(HandlerMethods):
    """A stream-processing application: its topics, tables, handlers, sinks and resources.

    The methods that declare handlers, sinks, tables, windows, joins, timers and histories do so for the main group of
    the app, which is called `main`. `group` makes further groups, which have the same methods. Declaring opens no
    connection; `run` and `pipeline worker` start a worker.

    Args:
        name: The app's name. It is part of durable names, such as those of journal topics and transactional ids, so
            an app with another name is a new app. Letters, digits, `_` and `-`.
        tasks: The number of tasks of the main group, as for `group`.

    Raises:
        ConfigError: The name or the number of tasks is not allowed.

    Example:
        ```python
        from pipeline import App, Context, Event

        app = App("word-counts")
        words = app.topic("words", key=str, value=str)
        counts = app.table("counts", key=str, value=int)


        @app.handler(words)
        def count(event: Event[str, str], ctx: Context) -> None:
            table = ctx.table(counts)
            table[event.value] = table.get(event.value, 0) + 1
        ```
    """

    def __init__(self, name: str, *, tasks: int | None = None) -> None:
        self._declared = DeclaredApp(name, tasks)
        self._group = self._declared.main

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    @property
    def name(self) -> str:
        """The app's name, as given to `App(...)`."""
        return self._declared.name

    @property
    def topics(self) -> Mapping[str, Topic[Any, Any]]:
        """The declared topics by name. The mapping cannot be changed."""
        return MappingProxyType(self._declared.topics)

    @overload
    def topic(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[K, V] | None = None,
        event_time_ms: Callable[[Event[K, V]], int] | None = None,
    ) -> Topic[K, V]: ...

    @overload
    def topic(
        self,
        name: str,
        *,
        value: TypeForm[V],
        codec: Codec[V] | MessageCodec[V] | CodecName | None = None,
        dedup: Dedup[None, V] | None = None,
        event_time_ms: Callable[[Event[None, V]], int] | None = None,
    ) -> Topic[None, V]: ...

    def topic(
        self,
        name: str,
        *,
        key: Any = None,
        value: Any,
        codec: Any = None,
        dedup: Any = None,
        event_time_ms: Any = None,
    ) -> Topic[Any, Any]:
        """Declare a topic that the app reads, writes or both.

        Args:
            name: The topic's name in Kafka.
            key: The type of keys: `str`, `bytes`, `int`, a tuple or frozen Struct of these, or one of them `| None`.
                Without it, the app's records have no key, and the key of a record that arrives is ignored.
            value: The type of values: any type that msgspec can encode. With `| None`, a null value (a tombstone) is
                decoded as None.
            codec: How values become bytes: `"json"` (default), `"msgpack"`, `"raw"` (bytes; their default), or a
                `Codec` or `MessageCodec` of your own.
            dedup: Drops events whose id was seen before; see `Dedup`.
            event_time_ms: Gives the event time of an event, in milliseconds since the epoch, for windows, joins,
                timers, histories and rows that expire. Default: the record's timestamp. If it raises or returns
                anything but an int of 0 or more, or a time more than an hour ahead of the wall clock, the record has
                failed, and `on_error` is applied without retries. A sink ignores it.

        Returns:
            The topic, for `handler`, `sink`, `ctx.send` and producers.

        Raises:
            ConfigError: The name, a type or the codec cannot be used, or the topic is declared already.

        Example:
            ```python
            orders = app.topic("orders", key=str, value=Order)
            payloads = app.topic("payloads", value=bytes)
            trips = app.topic("trips", key=str, value=Trip, event_time_ms=lambda event: event.value.ended_ms)
            ```
        """
        return self._declared.topic(name, key, value, codec, dedup, event_time_ms)

    def group(self, name: str, *, tasks: int | None = None) -> Group:
        """Declare another group, with its own tables, positions and commits.

        Args:
            name: The group's name, part of durable names. Not `main`.
            tasks: The number of tasks, at most that of the partitions of each input. The workers share the tasks, so
                it limits how many workers can process the group. A group of handlers keeps the number with which it
                was started. Default: that number; for a new group one task for each partition, at most 32.

        Returns:
            The group, which has the methods of the app that declare for a group, such as `handler` and `table`.

        Raises:
            ConfigError: The name or the number of tasks is not allowed, or the group is declared already.

        Example:
            ```python
            archive = app.group("archive")
            archive.sink(orders, Sqlite("orders.db", "orders", row=lambda event: {"id": event.key}))
            ```
        """
        return group_view(self._declared.group(name, tasks))

    def resource(self, factory: Callable[[], R]) -> Resource[R]:
        """Declare an object that handlers share, such as an HTTP client: each worker creates one.

        Args:
            factory: Creates the object when a handler first uses the resource. If the object has a method `aclose` or
                `close`, the worker calls it when it stops, and awaits the result.

        Returns:
            The resource, for `ctx.resource`.

        Raises:
            ConfigError: `factory` is not a function.

        Example:
            ```python
            http = app.resource(lambda: httpx.Client(timeout=5))
            ```
        """
        return self._declared.resource(factory)

    def run(self, settings: Settings | None = None) -> None:
        """Run a worker on this thread until SIGTERM or SIGINT. It shares the tasks with the app's other workers.

        The log goes to structlog, as the program has configured it. `pipeline worker MODULE:APP` does the same with
        a log of JSON lines, and with several processes if asked.

        Args:
            settings: Default: the settings of the environment and of `pipeline.toml`, as `load_settings` reads them.

        Raises:
            ConfigError: A setting, a declaration or a topic is wrong.
            UnreachableError: Kafka did not answer within `kafka.startup_wait_s`.
            PipelineError: The first failure of a task, when the worker has stopped.

        Example:
            ```python
            if __name__ == "__main__":
                app.run()
            ```
        """
        # Imported here, because the clients of Kafka and RocksDB take time to load: a test of handlers and most
        # commands import the app only for its declarations.
        from pipeline.processes.wiring import run_app  # noqa: PLC0415

        run_app(self._declared, settings if settings is not None else load_settings())

    def running(self, settings: Settings | None = None) -> AbstractAsyncContextManager[RunningWorker]:
        """Run a worker inside an asyncio program, for the duration of an `async with` block.

        The block begins when the worker has joined the other workers. At its end, the worker commits its open work and
        releases its tasks, as after SIGTERM. It runs on a thread of its own, and does not handle signals.

        Args:
            settings: Default: from `PIPELINE_*` variables and `pipeline.toml`, as `load_settings` reads them.

        Returns:
            A context manager that gives a `RunningWorker`. If the worker ends with an error, the block continues,
            `error` is set, and the end of the block raises it.

        Raises:
            ConfigError: A setting, a declaration or a topic is wrong. Raised where the block begins.
            UnreachableError: Kafka did not answer within `kafka.startup_wait_s`. Raised where the block begins.
            PipelineError: The first failure of a task. Raised at the end of the block.

        Example:
            ```python
            async with app.running() as worker:
                await serve()
            ```
        """
        from pipeline.processes.embedded import running  # noqa: PLC0415 - as in `run`

        return running(self._declared, settings if settings is not None else load_settings())


def declared_app(app: App | Any) -> DeclaredApp:
    """What the package reads of an app: an `App`, or a `faust.App`. Raises ConfigError."""
    if isinstance(app, App):
        return app._declared  # noqa: SLF001 - the one place that does
    if is_faust_app(app):
        return declared_faust_app(app)
    raise ConfigError(f"{app!r} is not an App", hint='use what App("name") returned')
