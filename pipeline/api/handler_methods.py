"""The methods of `App` and `Group` that register functions and sinks, and the types of their decorators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from pipeline.api.async_context import AsyncContext
from pipeline.api.bindings import (
    CONCURRENCY,
    RETRY_DELAY_S,
    TIMEOUT_S,
    Binding,
    OnError,
    SinkBinding,
    check_calls,
)
from pipeline.api.closed_windows import ClosedWindow
from pipeline.api.context import Context
from pipeline.api.declarations import Topic
from pipeline.api.event import Batch, Event
from pipeline.api.sinks import Sink
from pipeline.api.state_methods import StateMethods
from pipeline.api.ticks import Tick, TickTopic
from pipeline.api.timers import DeclaredTimers, FiredTimer, Timers
from pipeline.api.windows import DeclaredWindow, Window
from pipeline.core.names import check_name
from pipeline.errors import ConfigError

__all__ = [
    "AsyncHandlerDecorator",
    "BatchHandlerDecorator",
    "CloseDecorator",
    "HandlerDecorator",
    "HandlerMethods",
    "TickDecorator",
    "TimerDecorator",
]

K = TypeVar("K")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])


class HandlerDecorator(Protocol[K, V]):
    """Registers a function of an `Event` and a `Context`, and returns it."""

    def __call__(
        self, function: Callable[[Event[K, V], Context], None], /
    ) -> Callable[[Event[K, V], Context], None]:
        """Register the function. Raises ConfigError for one that cannot be called with an event and a context."""


class BatchHandlerDecorator(Protocol[K, V]):
    """Registers a function of a `Batch` and a `Context`, and returns it."""

    def __call__(
        self, function: Callable[[Batch[K, V], Context], None], /
    ) -> Callable[[Batch[K, V], Context], None]:
        """Register the function. Raises ConfigError for one that cannot be called with a batch and a context."""


class AsyncHandlerDecorator(Protocol[K, V]):
    """Registers an async function of an `Event` and an `AsyncContext`, and returns it."""

    def __call__(
        self, function: Callable[[Event[K, V], AsyncContext], Coroutine[Any, Any, None]], /
    ) -> Callable[[Event[K, V], AsyncContext], Coroutine[Any, Any, None]]:
        """Register the function. Raises ConfigError for one that is not async, or takes other arguments."""


class CloseDecorator(Protocol[K, V]):
    """Registers a function of a `ClosedWindow` and a `Context`, and returns it."""

    def __call__(
        self, function: Callable[[ClosedWindow[K, V], Context], None], /
    ) -> Callable[[ClosedWindow[K, V], Context], None]:
        """Register the function. Raises ConfigError for one that cannot be called with a window and a context."""


class TimerDecorator(Protocol[K]):
    """Registers a function of a `FiredTimer` and a `Context`, and returns it."""

    def __call__(
        self, function: Callable[[FiredTimer[K], Context], None], /
    ) -> Callable[[FiredTimer[K], Context], None]:
        """Register the function. Raises ConfigError for one that cannot be called with a timer and a context."""


class TickDecorator(Protocol):
    """Registers a function of a `Tick` and a `Context`, and returns it."""

    def __call__(self, function: Callable[[Tick, Context], None], /) -> Callable[[Tick, Context], None]:
        """Register the function. Raises ConfigError for one that cannot be called with a tick and a context."""


class HandlerMethods(StateMethods):
    """Registers functions and sinks in one group, and declares its states."""

    def handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> HandlerDecorator[K, V]:
        """Register a function for each record of a topic. Several handlers of a topic run in the order declared.

        The function's writes and outputs are committed exactly once. If it raises, the record leaves nothing behind.

        Args:
            topic: A topic of this app.
            on_error: What happens with a record whose processing raises: `"stop"` its partition, `"skip"` the record,
                or send it to the group's dead-letter topic (`"dead_letter"`). A task stops once all its partitions
                have.
            retries: How often such a record is tried again first. The records behind it in its partition wait; other
                partitions do not.
            retry_delay_s: Seconds before the first retry, at most 3600. Each further delay is twice as long, up to a
                minute.

        Returns:
            A decorator for a function of an `Event` and a `Context`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used, or the group has sinks.

        Example:
            ```python
            @app.handler(orders, on_error="dead_letter", retries=3)
            def bill(event: Event[str, Order], ctx: Context) -> None:
                ctx.send(bills, event.key, Bill(event.value.amount))
            ```
        """
        declared = self._group.checked_topic(topic, "handler")
        return _registering(
            lambda function: self._group.bind(
                Binding(declared, function, on_error, False, retries, retry_delay_s)
            )
        )

    def batch_handler(
        self,
        topic: Topic[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> BatchHandlerDecorator[K, V]:
        """Register a function for batches of a topic's records. It is the topic's only handler in this group.

        If it raises, the batch is undone and tried again in halves, until the failing record is alone in its batch.

        Args:
            topic: A topic of this app.
            on_error: As for `handler`, for the record that fails.
            retries: As for `handler`.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for a function of a `Batch` and a `Context`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used, or the group has sinks.

        Example:
            ```python
            @app.batch_handler(orders)
            def bill_all(batch: Batch[str, Order], ctx: Context) -> None:
                known = ctx.table(customers).get_many(batch.keys)
            ```
        """
        declared = self._group.checked_topic(topic, "batch_handler")
        return _registering(
            lambda function: self._group.bind(
                Binding(declared, function, on_error, True, retries, retry_delay_s)
            )
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
        """Register an async function that is called for each record of a topic; many calls are in flight at once.

        Calls for records of one key run one after the other, in order; those of other keys, and of records without a
        key, run at the same time. Writes and outputs are committed exactly once, in the order of the records. After a
        crash, up to 1,024 calls of each task are repeated with the same effect keys. The handlers of a group are all
        async, or none of them is: an app with other handlers declares its async handlers on another group. A topic has
        at most one async handler in a group.

        Args:
            topic: A topic of this app, without `dedup`.
            concurrency: How many calls of the group run at once in a worker, at most. All handlers of a group have the
                same value.
            timeout_s: Seconds from the start of a call after which it is cancelled and has failed, at most 3600.
            on_error: As for `handler`. Retries and time-outs come first.
            retries: As for `handler`. The calls of other keys continue meanwhile, but nothing behind the record in its
                partition is committed.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for an async function of an `Event` and an `AsyncContext`.

        Raises:
            ConfigError: The topic, the function or an option cannot be used, or the group has sinks or handlers that
                are not async.

        Example:
            ```python
            http = app.resource(lambda: httpx.AsyncClient(timeout=5))
            scoring = app.group("scoring")


            @scoring.async_handler(orders, concurrency=64, timeout_s=10.0, retries=3)
            async def score(event: Event[str, Order], ctx: AsyncContext) -> None:
                response = await ctx.resource(http).get(f"{SCORES}/{event.key}")
                ctx.send(scores, event.key, response.raise_for_status().json())
            ```
        """
        group = self._group
        declared = group.checked_topic(topic, "async_handler")
        check_calls(group.name, concurrency, timeout_s)
        if declared.dedup is not None:
            raise ConfigError(
                f"group {group.name}: topic {topic.name} drops duplicates (dedup=), which a group of async handlers "
                "cannot do",
                hint="let a plain handler of another group send the events to a second topic without dedup=, and read "
                "that one",
            )
        return _registering(
            lambda function: group.bind(
                Binding(declared, function, on_error, False, retries, retry_delay_s, concurrency, timeout_s)
            )
        )

    def on_close(
        self,
        window: Window[K, V],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> CloseDecorator[K, V]:
        """Register the function that is called with the final value of each key when a window closes.

        Its writes and outputs are committed exactly once, together with the removal of the row. Rows that close
        together are given in the order of their ends and keys. A window has one such function at most.

        Args:
            window: A window of this group.
            on_error: What happens with a row whose function raises: `"stop"` its partition, `"skip"` the row, or send
                it to the group's dead-letter topic (`"dead_letter"`). A replay calls the function again.
            retries: How often it is tried again first. The later rows of the window wait; records do not.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for a function of a `ClosedWindow` and a `Context`.

        Raises:
            ConfigError: The window, the function or an option cannot be used, or the window has such a function.

        Example:
            ```python
            @app.on_close(hourly, on_error="dead_letter")
            def publish(hour: ClosedWindow[str, int], ctx: Context) -> None:
                ctx.send(totals, hour.key, hour.value)
            ```
        """
        group = self._group
        if not isinstance(window, DeclaredWindow):
            raise ConfigError(
                f"group {group.name}: {window!r} is not a window",
                hint="use @app.on_close(window) above the function",
            )
        if group.tables.get(window.name) is not window:
            raise ConfigError(f"group {group.name}: {window.label} belongs to another group")
        closes = window.closes
        taken = f"{window.label} has an on_close function; it must be the only one"
        return _registering(
            lambda function: group.bind_checked_step(
                Binding(closes, function, on_error, False, retries, retry_delay_s), ClosedWindow, taken
            )
        )

    def on_timer(
        self,
        timers: Timers[K],
        *,
        on_error: OnError = "stop",
        retries: int = 0,
        retry_delay_s: float = RETRY_DELAY_S,
    ) -> TimerDecorator[K]:
        """Register the function that is called with each timer that is due.

        Its writes and outputs are committed exactly once, together with the removal of the timer. All due timers are
        called before the next record of the partition, in the order of their times and keys. Timers have one such
        function.

        Args:
            timers: Timers of this group.
            on_error: What happens with a timer whose function raises: `"stop"` its partition, `"skip"` the timer, or
                send it to the group's dead-letter topic (`"dead_letter"`). A replay calls the function again.
            retries: How often it is tried again first. The later timers of this name wait; records do not.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for a function of a `FiredTimer` and a `Context`.

        Raises:
            ConfigError: The timers, the function or an option cannot be used, or the timers have such a function.

        Example:
            ```python
            @app.on_timer(reminders, on_error="dead_letter")
            def remind(timer: FiredTimer[str], ctx: Context) -> None:
                ctx.send(reminded, timer.key, timer.due_ms)
            ```
        """
        group = self._group
        if not isinstance(timers, DeclaredTimers):
            raise ConfigError(
                f"group {group.name}: {timers!r} are not timers",
                hint="use @app.on_timer(timers) above the function",
            )
        declared = timers
        if group.tables.get(declared.name) is not declared:
            raise ConfigError(f"group {group.name}: {declared.label} belong to another group")
        taken = f"{declared.label} have an on_timer function; it must be the only one"
        return _registering(
            lambda function: group.bind_checked_step(
                Binding(declared.fires, function, on_error, False, retries, retry_delay_s), FiredTimer, taken
            )
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
        """Register a function that is called every so many seconds of the wall clock, in each partition.

        The due times are the multiples of the period since the epoch. Its writes and outputs are committed exactly once
        for each due time. Times that passed without a call, because no worker ran, give one call.

        Args:
            seconds: The period, from 1 second to ten years.
            name: The name, part of durable names.
            on_error: What happens with a due time whose function raises: `"stop"` its partition, `"skip"` the time, or
                send it to the group's dead-letter topic (`"dead_letter"`). A replay calls the function again.
            retries: How often it is tried again first. Records do not wait.
            retry_delay_s: As for `handler`.

        Returns:
            A decorator for a function of a `Tick` and a `Context`.

        Raises:
            ConfigError: The function or an option cannot be used, the name is used already, or the group has sinks or
                async handlers.

        Example:
            ```python
            @app.every(60, name="size")
            def size(tick: Tick, ctx: Context) -> None:
                ctx.send(sizes, "orders", len(list(ctx.table(orders).items())))
            ```
        """
        group = self._group
        check_name("every", name)
        where = f"every {group.name}.{name}"
        if group.sinks:
            raise group.mixed(where)
        for binding in group.bindings:
            group.check_plain(f"every, {name}", binding)
        topic = TickTopic(group.name, name, seconds)
        return _registering(
            lambda function: group.bind_checked_step(
                Binding(topic, function, on_error, False, retries, retry_delay_s),
                Tick,
                f"{where} is declared twice",
            )
        )

    def sink(self, topic: Topic[K, V], to: Sink[K, V], *, on_error: OnError = "stop") -> None:
        """Write the rows of a topic's records to a database, exactly once.

        Rows and positions are one transaction of the database. So a group has either handlers or sinks, all sinks of
        a group write to one database, and its input topics are co-partitioned. Sinks of one topic write in the order
        in which they were declared.

        Args:
            topic: A topic of this app, without `dedup`.
            to: A `Postgres` or a `Sqlite`.
            on_error: What happens with a record whose row cannot be made or is refused: `"stop"` its task, or
                `"skip"` the record.

        Raises:
            ConfigError: The topic, the sink or the option cannot be used, or the group has handlers or tables.

        Example:
            ```python
            archive = app.group("archive")
            archive.sink(orders, Postgres(os.environ["DSN"], "orders", row=lambda event: {"id": event.key}))
            ```
        """
        group = self._group
        where = f"group {group.name}"
        declared = group.checked_topic(topic, "group(...).sink")
        if not isinstance(to, Sink):
            raise ConfigError(
                f"{where}: {to!r} is not a sink", hint="use pipeline.Postgres or pipeline.Sqlite"
            )
        if group.bindings or group.tables or group.steps:
            raise group.mixed(f"a sink, {to!r}")
        if on_error == "dead_letter":
            raise ConfigError(
                f"{where}: a sink has no dead letters: its positions are in the database, and a Kafka transaction "
                "cannot include the database",
                hint="let a handler in another group check records first, with on_error='dead_letter'; or 'skip'",
            )
        if on_error not in {"stop", "skip"}:
            raise ConfigError(f"{where}: on_error is {on_error!r}; for a sink it must be stop or skip")
        if not group.app.owns(topic):
            raise ConfigError(f"{where}: topic {topic.name} belongs to another app")
        if declared.dedup is not None:
            raise ConfigError(
                f"{where}: topic {topic.name} drops duplicates by their ids, and a sink remembers no ids",
                hint="let a handler of another group send the other events to another topic, and sink that one",
            )
        other = next(
            (b.sink for b in group.sinks if (b.sink.engine, b.sink.address) != (to.engine, to.address)), None
        )
        if other is not None:
            raise ConfigError(
                f"{where}: {to!r} and {other!r} are in different databases, and cannot share a transaction",
                hint="declare app.group(...) for each database; give the same DSN for the same database",
            )
        group.sinks.append(SinkBinding(declared, to, on_error))


def _registering(bind: Callable[[F], None]) -> Callable[[F], F]:
    """A decorator that registers a function, and returns it."""

    def register(function: F) -> F:
        bind(function)
        return function

    return register
