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
from pipeline.api.bindings import CONCURRENCY, RETRY_DELAY_S, TIMEOUT_S, OnError
from pipeline.api.codecs import CodecName
from pipeline.api.custom_codecs import Codec, MessageCodec
from pipeline.api.declarations import Dedup, Resource, Table, Topic
from pipeline.api.event import Event
from pipeline.api.group import (
    AsyncHandlerDecorator,
    BatchHandlerDecorator,
    CloseDecorator,
    Group,
    HandlerDecorator,
    TickDecorator,
    TimerDecorator,
)
from pipeline.api.histories import MOST_VALUES, History
from pipeline.api.joins import MOST_EVENTS, Join
from pipeline.api.sinks import Sink
from pipeline.api.timers import Timers
from pipeline.api.windows import Hopping, Sessions, Tumbling, Window
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError
from pipeline.faust import declared_faust_app, is_faust_app

if TYPE_CHECKING:
    from pipeline.processes.embedded import RunningWorker

__all__ = ["App", "declared_app"]

K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")
R = TypeVar("R")


class App:
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
        return self._declared.group(name, tasks)

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

    def table(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        codec: Codec[V] | CodecName | None = None,
        upgrade: Callable[[Any], V] | None = None,
        ttl_s: float | None = None,
    ) -> Table[K, V]:
        """Declare a table of the main group. See `Group.table`.

        Args:
            name: The table's name, part of durable names.
            key: The type of keys, as for `topic` but never None.
            value: The type of values.
            codec: How values become bytes, as for `topic`.
            upgrade: Makes a value of the present type from a stored value of an earlier type. It gets what
                `json.loads` would return for a stored JSON value.
            ttl_s: How many seconds of event time a row is kept after its last write. Default: forever.

        Returns:
            The table, for `ctx.table`.

        Raises:
            ConfigError: The name, a type, the codec or `ttl_s` cannot be used, or the table is declared already.

        Example:
            ```python
            totals = app.table("totals", key=str, value=int)
            carts = app.table("carts", key=str, value=Cart, ttl_s=86_400)  # a day after the last write

            # after a change of the type: earlier values were Structs with the field `amount`, in euros
            totals = app.table("totals", key=str, value=Cents, upgrade=lambda old: Cents(old["amount"] * 100))
            ```
        """
        return self._declared.main.table(
            name, key=key, value=value, codec=codec, upgrade=upgrade, ttl_s=ttl_s
        )

    def window(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        size: Tumbling | Hopping | Sessions[V],
        grace_s: float,
        default: V,
        late_to: Topic[Any, Any] | None = None,
        codec: Codec[V] | CodecName | None = None,
        upgrade: Callable[[Any], V] | None = None,
    ) -> Window[K, V]:
        """Declare a window of the main group. See `Group.window`.

        Args:
            name: The name, part of durable names.
            key: The type of keys, as for `table`.
            value: The type of values, as for `table`.
            size: `Tumbling(seconds)`, `Hopping(seconds, every_s=...)` or `Sessions(gap_s, merge=...)`.
            grace_s: How many seconds of event time a window stays open after its end.
            default: The value of a key before it is assigned.
            late_to: A topic of the app for the records of late events.
            codec: How values become bytes, as for `table`.
            upgrade: As for `table`.

        Returns:
            The window, for `ctx.window` and `on_close`.

        Raises:
            ConfigError: An argument cannot be used, or the name is declared already.

        Example:
            ```python
            hourly = app.window("hourly", key=str, value=int, size=Tumbling(3600), grace_s=60, default=0)
            ```
        """
        return self._declared.main.window(
            name,
            key=key,
            value=value,
            size=size,
            grace_s=grace_s,
            default=default,
            late_to=late_to,
            codec=codec,
            upgrade=upgrade,
        )

    def history(
        self,
        name: str,
        *,
        key: TypeForm[K],
        value: TypeForm[V],
        keep_s: float,
        max_values: int = MOST_VALUES,
        codec: Codec[V] | CodecName | None = None,
        upgrade: Callable[[Any], V] | None = None,
    ) -> History[K, V]:
        """Declare a history of the main group. See `Group.history`.

        Args:
            name: The name, part of durable names.
            key: The type of keys, as for `table`.
            value: The type of values, as for `table`.
            keep_s: How many seconds of event time a value is kept.
            max_values: How many values a key may have within half of `keep_s`.
            codec: How values become bytes, as for `table`.
            upgrade: As for `table`, for each value.

        Returns:
            The history, for `ctx.history`.

        Raises:
            ConfigError: An argument cannot be used, or the name is declared already.

        Example:
            ```python
            recent = app.history("recent", key=str, value=int, keep_s=3600)
            ```
        """
        return self._declared.main.history(
            name, key=key, value=value, keep_s=keep_s, max_values=max_values, codec=codec, upgrade=upgrade
        )

    def join(
        self,
        name: str,
        left: Topic[K, L],
        right: Topic[K, R],
        *,
        within_s: float,
        grace_s: float,
        max_events: int = MOST_EVENTS,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> Join[K, L, R]:
        """Join two topics in the main group. See `Group.join`.

        Args:
            name: The name, part of durable names.
            left: A topic of this app.
            right: Another topic of this app, with the same key type.
            within_s: The longest time between the two events of a pair, in seconds of event time.
            grace_s: How much longer an event waits, for partners that arrive out of order.
            max_events: How many events of a key may wait on each side.
            on_error: As for `handler`, for records and unmatched events whose function raises.
            retries: As for `handler`.
            retry_delay_s: As for `handler`.

        Returns:
            The join, for its decorators `on_match`, `on_unmatched_left` and `on_unmatched_right`.

        Raises:
            ConfigError: An argument cannot be used.

        Example:
            ```python
            paid = app.join("paid", orders, payments, within_s=600, grace_s=60)
            ```
        """
        return self._declared.main.join(
            name,
            left,
            right,
            within_s=within_s,
            grace_s=grace_s,
            max_events=max_events,
            on_error=on_error,
            retries=retries,
            retry_delay_s=retry_delay_s,
        )

    def timers(self, name: str, *, key: TypeForm[K]) -> Timers[K]:
        """Declare timers of the main group, one for each key. See `Group.timers`.

        Args:
            name: The name, part of durable names.
            key: The type of keys, as for `table`.

        Returns:
            The timers, for `ctx.timers` and `on_timer`.

        Raises:
            ConfigError: An argument cannot be used, or the name is declared already.

        Example:
            ```python
            reminders = app.timers("reminders", key=str)
            ```
        """
        return self._declared.main.timers(name, key=key)

    def on_timer(
        self,
        timers: Timers[K],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> TimerDecorator[K]:
        """Register the function that is called with each due timer of the main group. See `Group.on_timer`.

        Args:
            timers: Timers of the main group.
            on_error: What happens with a timer whose function raises: `"stop"` its partition, `"skip"` the timer, or
                send it to the group's dead-letter topic (`"dead_letter"`).
            retries: How often it is tried again first.
            retry_delay_s: Seconds before the first retry. Each further delay is twice as long, up to a minute.

        Returns:
            A decorator for a function of a `FiredTimer` and a `Context`.

        Raises:
            ConfigError: The timers, the function or an option cannot be used.

        Example:
            ```python
            @app.on_timer(reminders)
            def remind(timer: FiredTimer[str], ctx: Context) -> None:
                ctx.send(reminded, timer.key, timer.due_ms)
            ```
        """
        return self._declared.main.on_timer(
            timers, on_error=on_error, retries=retries, retry_delay_s=retry_delay_s
        )

    def every(
        self,
        seconds: float,
        *,
        name: str,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> TickDecorator:
        """Register a function that is called every so many seconds, in each partition of the main group.

        See `Group.every`.

        Args:
            seconds: The period of the wall clock, from 1 second to ten years.
            name: The name, part of durable names.
            on_error: What happens with a due time whose function raises: `"stop"` its partition, `"skip"` the time, or
                send it to the group's dead-letter topic (`"dead_letter"`).
            retries: How often it is tried again first.
            retry_delay_s: Seconds before the first retry. Each further delay is twice as long, up to a minute.

        Returns:
            A decorator for a function of a `Tick` and a `Context`.

        Raises:
            ConfigError: The function or an option cannot be used, or the name is used already.

        Example:
            ```python
            @app.every(60, name="size")
            def size(tick: Tick, ctx: Context) -> None:
                ctx.send(sizes, "orders", len(list(ctx.table(orders).items())))
            ```
        """
        return self._declared.main.every(
            seconds, name=name, on_error=on_error, retries=retries, retry_delay_s=retry_delay_s
        )

    def on_close(
        self,
        window: Window[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> CloseDecorator[K, V]:
        """Register the function that is called when a window of the main group closes. See `Group.on_close`.

        Args:
            window: A window of the main group.
            on_error: What happens with a row whose function raises: `"stop"` its partition, `"skip"` the row, or send
                it to the group's dead-letter topic (`"dead_letter"`).
            retries: How often it is tried again first.
            retry_delay_s: Seconds before the first retry. Each further delay is twice as long, up to a minute.

        Returns:
            A decorator for a function of a `ClosedWindow` and a `Context`.

        Raises:
            ConfigError: The window, the function or an option cannot be used.

        Example:
            ```python
            @app.on_close(hourly)
            def publish(hour: ClosedWindow[str, int], ctx: Context) -> None:
                ctx.send(totals, hour.key, hour.value)
            ```
        """
        return self._declared.main.on_close(
            window, on_error=on_error, retries=retries, retry_delay_s=retry_delay_s
        )

    def handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> HandlerDecorator[K, V]:
        """Register a function of the main group for each record of a topic. See `Group.handler`.

        Args:
            topic: A topic of this app.
            on_error: What happens with a record whose processing raises: `"stop"` its partition, `"skip"` the record,
                or send it to the group's dead-letter topic (`"dead_letter"`).
            retries: How often such a record is tried again first.
            retry_delay_s: Seconds before the first retry. Each further delay is twice as long, up to a minute.

        Returns:
            A decorator for a function of an `Event` and a `Context`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used.

        Example:
            ```python
            @app.handler(orders, on_error="dead_letter", retries=3)
            def bill(event: Event[str, Order], ctx: Context) -> None: ...
            ```
        """
        return self._declared.main.handler(
            topic, on_error=on_error, retries=retries, retry_delay_s=retry_delay_s
        )

    def batch_handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> BatchHandlerDecorator[K, V]:
        """Register a function of the main group for batches of a topic's records. See `Group.batch_handler`.

        Args:
            topic: A topic of this app. It can have no other handler in this group.
            on_error: As for `handler`, for the record that fails.
            retries: As for `handler`.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for a function of a `Batch` and a `Context`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used.

        Example:
            ```python
            @app.batch_handler(orders)
            def bill_all(batch: Batch[str, Order], ctx: Context) -> None:
                known = ctx.table(customers).get_many(batch.keys)
            ```
        """
        return self._declared.main.batch_handler(
            topic, on_error=on_error, retries=retries, retry_delay_s=retry_delay_s
        )

    def async_handler(
        self,
        topic: Topic[K, V],
        *,
        concurrency: int = CONCURRENCY,
        timeout_s: float = TIMEOUT_S,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> AsyncHandlerDecorator[K, V]:
        """Register an async function of the main group for each record of a topic. See `Group.async_handler`.

        The handlers of a group are all async, or none of them is. So an app with other handlers declares its async
        handlers on another group.

        Args:
            topic: A topic of this app, without `dedup`.
            concurrency: How many calls of the group run at once in a worker, at most.
            timeout_s: Seconds from the start of a call after which it is cancelled and has failed.
            on_error: As for `handler`.
            retries: As for `handler`.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for an async function of an `Event` and an `AsyncContext`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used.

        Example:
            ```python
            @app.async_handler(orders, timeout_s=10.0, retries=3)
            async def score(event: Event[str, Order], ctx: AsyncContext) -> None: ...
            ```
        """
        return self._declared.main.async_handler(
            topic,
            concurrency=concurrency,
            timeout_s=timeout_s,
            on_error=on_error,
            retries=retries,
            retry_delay_s=retry_delay_s,
        )

    def sink(self, topic: Topic[K, V], to: Sink[K, V], *, on_error: OnError = "stop") -> None:
        """Write the rows of a topic's records to a database, exactly once. See `Group.sink`.

        A group has either handlers or sinks, so an app with handlers declares its sinks on another group.

        Args:
            topic: A topic of this app.
            to: A `Postgres` or a `Sqlite`.
            on_error: What happens with a record that has no valid row: `"stop"` its task, or `"skip"` the record.

        Raises:
            ConfigError: The topic, the sink or the option cannot be used, or the group has handlers.

        Example:
            ```python
            app.sink(orders, Postgres(os.environ["DSN"], "orders", row=lambda event: {"id": event.key}))
            ```
        """
        self._declared.main.sink(topic, to, on_error=on_error)

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
