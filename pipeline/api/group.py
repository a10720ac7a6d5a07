"""Handlers or sinks that share positions: a `Group`, and `DeclaredGroup`, which the package reads of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from typing_extensions import TypeForm

from pipeline.api.async_context import AsyncContext
from pipeline.api.bindings import (
    CONCURRENCY,
    RETRY_DELAY_S,
    TIMEOUT_S,
    Binding,
    OnError,
    SinkBinding,
    check_calls,
    check_function,
    check_policy,
    check_retries,
)
from pipeline.api.closed_windows import ClosedWindow
from pipeline.api.codecs import CodecName, resolve_value
from pipeline.api.context import Context
from pipeline.api.custom_codecs import Codec
from pipeline.api.declarations import DeclaredTable, DeclaredTopic, Table, Topic
from pipeline.api.event import Batch, Event
from pipeline.api.expiring_rows import ExpiringTable
from pipeline.api.histories import MOST_VALUES, DeclaredHistory, History
from pipeline.api.joins import MOST_EVENTS, DeclaredJoin, Join, Owner, Policy
from pipeline.api.keys import resolve_key
from pipeline.api.sinks import Sink
from pipeline.api.ticks import Tick, TickTopic
from pipeline.api.timers import DeclaredTimers, FiredTimer, Timers
from pipeline.api.windows import (
    DeclaredWindow,
    Hopping,
    Sessions,
    Tumbling,
    Window,
    WindowOptions,
    declared_window,
)
from pipeline.core.names import GroupId, check_name
from pipeline.errors import ConfigError

__all__ = [
    "AsyncHandlerDecorator",
    "BatchHandlerDecorator",
    "CloseDecorator",
    "DeclaredGroup",
    "Group",
    "HandlerDecorator",
    "TickDecorator",
    "TimerDecorator",
]

K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")
R = TypeVar("R")


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


class _App(Protocol):
    """The app that a group is declared in."""

    name: str

    def owns(self, topic: Topic[Any, Any]) -> bool: ...


class Group:
    """Handlers that share tables and positions, or sinks that share positions. Made by `app.group(...)`.

    The input topics of a group are co-partitioned: they have equally many partitions. Task N of T tasks processes
    the partitions N, N + T, N + 2 * T and so on of each, and commits by itself. Groups exchange data through topics.
    """

    if TYPE_CHECKING:  # set by DeclaredGroup
        _app: _App
        _name: str
        _bindings: list[Binding]
        _sinks: list[SinkBinding]
        _joins: dict[str, DeclaredJoin[Any, Any, Any]]
        _matches: dict[str, Binding]
        _steps: dict[str, Binding]
        _tables: dict[str, DeclaredTable[Any, Any]]

    @property
    def name(self) -> str:
        """The group's name."""
        return self._name

    def __repr__(self) -> str:
        return f"Group({self._app.name}/{self._name})"

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
        """Declare a table. A handler sees the rows of the partition of its record only.

        A row belongs to the partition of the record whose handler wrote it. So use keys that determine the partition,
        as the record's own key does.

        Args:
            name: The table's name, part of durable names. Letters, digits, `_` and `-`.
            key: The type of keys: `str`, `bytes`, `int`, or a tuple or frozen Struct of these.
            value: The type of values: any type that msgspec can encode.
            codec: How values become bytes: `"json"` (default), `"msgpack"`, `"raw"` (bytes; their default), or a
                `Codec` of your own.
            upgrade: Makes a value of the present type from a stored value of an earlier type. It gets what the JSON
                or msgpack contains (a dict for a Struct), or bytes from any other codec. It runs once for each row,
                before any handler; its results are one commit. Without it, a changed type is refused at the start.
            ttl_s: How many seconds of event time a row is kept after its last write, from 0.001 to ten years. When the
                clock of its partition has reached that time, the row is hidden from all readers, and deleted later.
                Default: rows are kept until a handler deletes them. The group must not have async handlers.

        Returns:
            The table, for `ctx.table` in handlers of this group.

        Raises:
            ConfigError: The name, a type, the codec or `ttl_s` cannot be used, the table is declared already, or the
                group has sinks.

        Example:
            ```python
            totals = app.table("totals", key=str, value=int)
            by_route = app.table("by-route", key=tuple[str, str], value=Delay)
            carts = app.table("carts", key=str, value=Cart, ttl_s=86_400)
            ```
        """
        where = self._new_name("table", name, upgrade)
        keys = resolve_key(key, where, tombstones=False)
        values = resolve_value(value, codec, where, tombstones=False)
        table: DeclaredTable[K, V]
        if ttl_s is None:
            table = DeclaredTable(self.name, name, keys, values, upgrade)
        else:
            table = ExpiringTable(self.name, name, keys, values, upgrade, ttl_s)
            for binding in self._bindings:
                self._check_clock(table, binding)
        self._tables[name] = table
        return table

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
        """Declare a window: a value for each key and each period of event time. Rows belong to a partition.

        A window closes when the clock of its partition has passed its end by `grace_s`. Then its handlers are called
        (`on_close`), and its rows are removed.

        Args:
            name: The name, part of durable names. It must differ from those of the group's tables.
            key: The type of keys, as for `table`.
            value: The type of values, as for `table`.
            size: `Tumbling(seconds)`, `Hopping(seconds, every_s=...)` or `Sessions(gap_s, merge=...)`. It cannot be
                changed later.
            grace_s: How many seconds of event time a window stays open after its end, for events out of order.
            default: The value of a key before it is assigned.
            late_to: A topic of the app, not an input of this group, that gets the records of events for which a window
                was closed already. Headers say which.
            codec: How values become bytes, as for `table`.
            upgrade: As for `table`.

        Returns:
            The window, for `ctx.window` in handlers of this group, and for `on_close`.

        Raises:
            ConfigError: An argument cannot be used, the name is declared already, or the group has sinks.

        Example:
            ```python
            hourly = app.window("hourly", key=str, value=int, size=Tumbling(3600), grace_s=60, default=0)
            ```
        """
        where = self._new_name("window", name, upgrade)
        options: WindowOptions[K, V] = WindowOptions(
            resolve_key(key, where, tombstones=False),
            resolve_value(value, codec, where, tombstones=False),
            (key, value),
            grace_s,
            default,
            late_to,
            upgrade,
        )
        window = declared_window(self.name, name, size, options)
        if late_to is not None and not self._app.owns(late_to):
            raise ConfigError(f"{where}: late_to is topic {late_to.name} of another app")
        for binding in self._bindings:
            self._check_window(window, binding)
        self._tables[name] = window
        return window

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
        """Declare a history: the values of each key by event time, for a while. Rows belong to a partition.

        A value is kept until the clock of its partition has passed its time by more than `keep_s`.

        Args:
            name: The name, part of durable names. It must differ from those of the group's tables and windows.
            key: The type of keys, as for `table`.
            value: The type of values, as for `table`.
            keep_s: How many seconds of event time a value is kept, from 0.002 to ten years. It can be changed later.
            max_values: How many values a key may have within half of `keep_s`, 1 to a million. If it has more, the
                oldest is removed, and counted in a metric. All of them are written in each commit that adds one.
            codec: How values become bytes, as for `table`.
            upgrade: As for `table`, for each value.

        Returns:
            The history, for `ctx.history` in handlers of this group.

        Raises:
            ConfigError: An argument cannot be used, the name is declared already, or the group has sinks or async
                handlers.

        Example:
            ```python
            recent = app.history("recent", key=str, value=int, keep_s=3600)
            ```
        """
        where = self._new_name("history", name, upgrade)
        history: DeclaredHistory[K, V] = DeclaredHistory(
            self.name,
            name,
            resolve_key(key, where, tombstones=False),
            resolve_value(value, codec, where, tombstones=False),
            upgrade,
            keep_s=keep_s,
            max_values=max_values,
        )
        for binding in self._bindings:
            self._check_clock(history, binding)
        self._tables[name] = history
        return history

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
        """Join two topics: pairs of events of one key whose times are close, and the events without a partner.

        Both topics become inputs of the group, and must have equally many partitions. An event waits for partners for
        `within_s + grace_s` of event time. Each one ends in its matches, or in exactly one call for an unmatched event.

        Args:
            name: The name, part of durable names.
            left: A topic of this app.
            right: Another topic of this app, with the same key type.
            within_s: The longest time between the two events of a pair, in seconds of event time. Either may be first.
            grace_s: How much longer an event waits, for partners that arrive out of order.
            max_events: How many events of a key may wait on each side. If there are more, the oldest one waits no
                longer. They are counted.
            on_error: What happens if a function of the join raises, as for `handler`: with the record that was matched,
                or with the unmatched event. A dead letter of an unmatched event is one of `@join/NAME/left` or `right`.
            retries: As for `handler`.
            retry_delay_s: As for `handler`.

        Returns:
            The join, for its decorators `on_match`, `on_unmatched_left` and `on_unmatched_right`.

        Raises:
            ConfigError: An argument cannot be used, the name is declared already, or the group has sinks, or handlers
                that are async, or a batch handler of one of the topics.

        Example:
            ```python
            paid = app.join("paid", orders, payments, within_s=600, grace_s=60)


            @paid.on_unmatched_left
            def unpaid(order: Event[str, Order], ctx: Context) -> None:
                ctx.send(alerts, order.key, Alert("not paid"))
            ```
        """
        self._new_name("join", name, None)
        join: DeclaredJoin[K, L, R] = DeclaredJoin(
            Owner(self.name, self._bind_match, self._bind_unmatched),
            name,
            left,
            right,
            Policy(on_error, retries, retry_delay_s),
            within_s=within_s,
            grace_s=grace_s,
            max_events=max_events,
        )
        for binding in join.bindings():
            self._bind(binding)
        for side in join.sides:
            self._tables[side.name] = side
        self._joins[name] = join
        return join

    def _bind_match(self, name: str, binding: Binding) -> None:
        if name in self._matches:
            raise ConfigError(f"join {self.name}.{name} has an on_match function; it must be the only one")
        self._matches[name] = binding

    def _bind_unmatched(self, join: str, side: str, binding: Binding) -> None:
        if binding.topic.name in self._steps:
            raise ConfigError(
                f"join {self.name}.{join} has an on_unmatched_{side} function; it must be the only one"
            )
        self._bind_steps(binding, Event)

    def _new_name(self, kind: str, name: str, upgrade: object) -> str:
        """The label of a new table, window, history or set of timers. Raises ConfigError."""
        check_name(kind, name)
        where = f"{kind} {self.name}.{name}"
        other = self._tables.get(name) or self._tables.get(f"{name}:left")
        if other is not None:
            same = other.label == where
            raise ConfigError(
                f"{where} is declared twice" if same else f"{where}: {other.label} has the same name"
            )
        if self._sinks:
            raise self._mixed(f"a {kind}, {name}")
        if upgrade is not None and not callable(upgrade):
            raise ConfigError(f"{where}: upgrade is {upgrade!r}; it must be a function of the old value")
        return where

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
            @group.on_close(hourly, on_error="dead_letter")
            def publish(hour: ClosedWindow[str, int], ctx: Context) -> None:
                ctx.send(totals, hour.key, hour.value)
            ```
        """

        def register(
            function: Callable[[ClosedWindow[K, V], Context], None],
        ) -> Callable[[ClosedWindow[K, V], Context], None]:
            if declared.closes.name in self._steps:
                raise ConfigError(f"{declared.label} has an on_close function; it must be the only one")
            binding = Binding(declared.closes, function, on_error, False, retries, retry_delay_s)
            self._bind_steps(binding, ClosedWindow)
            return function

        if not isinstance(window, DeclaredWindow):
            raise ConfigError(
                f"group {self.name}: {window!r} is not a window",
                hint="use @app.on_close(window) above the function",
            )
        if self._tables.get(window.name) is not window:
            raise ConfigError(f"group {self.name}: {window.label} belongs to another group")
        declared = window
        return register

    def timers(self, name: str, *, key: TypeForm[K]) -> Timers[K]:
        """Declare timers, one for each key, on the event clock of the partition.

        A handler sets a timer for a time. When the clock of the partition reaches it, the function of `on_timer` is
        called, before the next record. The group keeps a clock, as with a window.

        Args:
            name: The name, part of durable names. It must differ from those of the group's tables and windows.
            key: The type of keys, as for `table`.

        Returns:
            The timers, for `ctx.timers` in handlers of this group, and for `on_timer`, which is required.

        Raises:
            ConfigError: An argument cannot be used, the name is declared already, or the group has sinks or async
                handlers.

        Example:
            ```python
            reminders = app.timers("reminders", key=str)
            ```
        """
        where = self._new_name("timers", name, None)
        timers: DeclaredTimers[K] = DeclaredTimers(
            self.name, name, resolve_key(key, where, tombstones=False), key
        )
        for binding in self._bindings:
            self._check_clock(timers, binding)
        self._tables[name] = timers
        return timers

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
            @group.on_timer(reminders, on_error="dead_letter")
            def remind(timer: FiredTimer[str], ctx: Context) -> None:
                ctx.send(reminded, timer.key, timer.due_ms)
            ```
        """

        def register(
            function: Callable[[FiredTimer[K], Context], None],
        ) -> Callable[[FiredTimer[K], Context], None]:
            if declared.fires.name in self._steps:
                raise ConfigError(f"{declared.label} have an on_timer function; it must be the only one")
            binding = Binding(declared.fires, function, on_error, False, retries, retry_delay_s)
            self._bind_steps(binding, FiredTimer)
            return function

        if not isinstance(timers, DeclaredTimers):
            raise ConfigError(
                f"group {self.name}: {timers!r} are not timers",
                hint="use @app.on_timer(timers) above the function",
            )
        declared = timers
        if self._tables.get(declared.name) is not declared:
            raise ConfigError(f"group {self.name}: {declared.label} belong to another group")
        return register

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
            @group.every(60, name="size")
            def size(tick: Tick, ctx: Context) -> None:
                ctx.send(sizes, "orders", len(list(ctx.table(orders).items())))
            ```
        """

        def register(function: Callable[[Tick, Context], None]) -> Callable[[Tick, Context], None]:
            if topic.name in self._steps:
                raise ConfigError(f"{where} is declared twice")
            self._bind_steps(Binding(topic, function, on_error, False, retries, retry_delay_s), Tick)
            return function

        check_name("every", name)
        where = f"every {self.name}.{name}"
        if self._sinks:
            raise self._mixed(where)
        for binding in self._bindings:
            self._check_plain(f"every, {name}", binding)
        topic = TickTopic(self.name, name, seconds)
        return register

    def _bind_steps(self, binding: Binding, given: type) -> None:
        """Register the function of due steps. `given`: what it is called with."""
        check_function(self.name, binding, given)
        check_policy(self.name, binding.on_error)
        check_retries(self.name, binding)
        self._steps[binding.topic.name] = binding

    def _check_clock(self, table: DeclaredTable[Any, Any], binding: Binding) -> None:
        """Check a table that needs the event clock and a handler of one group."""
        kind = "table with ttl_s" if table.is_table else table.label.partition(" ")[0]
        self._check_plain(f"{kind if kind == 'timers' else f'a {kind}'}, {table.name}", binding)

    def _check_plain(self, what: str, binding: Binding) -> None:
        """Refuse `what` in a group of async handlers."""
        if binding.is_async:
            raise ConfigError(
                f"group {self.name} has async handlers and cannot have {what}: their calls end in any order",
                hint="let an async handler send its results to a topic, and count them in another group",
            )

    def _check_window(self, window: DeclaredWindow[Any, Any], binding: Binding) -> None:
        """Check a window and a handler of one group."""
        self._check_clock(window, binding)
        topic = binding.topic
        if window.late_to is topic:
            raise ConfigError(
                f"{window.label}: late_to is topic {topic.name}, which is an input of its group: a late event would "
                "come back, and be late again",
                hint="send late events to a topic that this group does not read",
            )

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
            @group.handler(orders, on_error="dead_letter", retries=3)
            def bill(event: Event[str, Order], ctx: Context) -> None:
                ctx.send(bills, event.key, Bill(event.value.amount))
            ```
        """

        def register(
            function: Callable[[Event[K, V], Context], None],
        ) -> Callable[[Event[K, V], Context], None]:
            self._bind(Binding(declared, function, on_error, False, retries, retry_delay_s))
            return function

        declared = self._checked(topic, "handler")
        return register

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
            @group.batch_handler(orders)
            def bill_all(batch: Batch[str, Order], ctx: Context) -> None:
                known = ctx.table(customers).get_many(batch.keys)
            ```
        """

        def register(
            function: Callable[[Batch[K, V], Context], None],
        ) -> Callable[[Batch[K, V], Context], None]:
            self._bind(Binding(declared, function, on_error, True, retries, retry_delay_s))
            return function

        declared = self._checked(topic, "batch_handler")
        return register

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
        async, or none of them is. A topic has at most one async handler in a group.

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

        def register(
            function: Callable[[Event[K, V], AsyncContext], Coroutine[Any, Any, None]],
        ) -> Callable[[Event[K, V], AsyncContext], Coroutine[Any, Any, None]]:
            self._bind(
                Binding(declared, function, on_error, False, retries, retry_delay_s, concurrency, timeout_s)
            )
            return function

        declared = self._checked(topic, "async_handler")
        check_calls(self.name, concurrency, timeout_s)
        if declared.dedup is not None:
            raise ConfigError(
                f"group {self.name}: topic {topic.name} drops duplicates (dedup=), which a group of async handlers "
                "cannot do",
                hint="let a plain handler of another group send the events to a second topic without dedup=, and read "
                "that one",
            )
        return register

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
        where = f"group {self.name}"
        declared = self._checked(topic, "group(...).sink")
        if not isinstance(to, Sink):
            raise ConfigError(
                f"{where}: {to!r} is not a sink", hint="use pipeline.Postgres or pipeline.Sqlite"
            )
        if self._bindings or self._tables or self._steps:
            raise self._mixed(f"a sink, {to!r}")
        if on_error == "dead_letter":
            raise ConfigError(
                f"{where}: a sink has no dead letters: its positions are in the database, and a Kafka transaction "
                "cannot include the database",
                hint="let a handler in another group check records first, with on_error='dead_letter'; or 'skip'",
            )
        if on_error not in {"stop", "skip"}:
            raise ConfigError(f"{where}: on_error is {on_error!r}; for a sink it must be stop or skip")
        if not self._app.owns(topic):
            raise ConfigError(f"{where}: topic {topic.name} belongs to another app")
        if declared.dedup is not None:
            raise ConfigError(
                f"{where}: topic {topic.name} drops duplicates by their ids, and a sink remembers no ids",
                hint="let a handler of another group send the other events to another topic, and sink that one",
            )
        other = next(
            (b.sink for b in self._sinks if (b.sink.engine, b.sink.address) != (to.engine, to.address)), None
        )
        if other is not None:
            raise ConfigError(
                f"{where}: {to!r} and {other!r} are in different databases, and cannot share a transaction",
                hint="declare app.group(...) for each database; give the same DSN for the same database",
            )
        self._sinks.append(SinkBinding(declared, to, on_error))

    def _mixed(self, what: str) -> ConfigError:
        return ConfigError(
            f"group {self.name} has {'sinks' if self._sinks else 'handlers or tables'} and cannot have {what}: "
            "the positions of a group are either in its journal or in a database",
            hint='declare a group of its own for sinks: app.group("rows").sink(...)',
        )

    def _checked(self, topic: Topic[K, V], method: str) -> DeclaredTopic[K, V]:
        if not isinstance(topic, DeclaredTopic):
            raise ConfigError(
                f"group {self.name}: {topic!r} is not a topic",
                hint=f"use @app.{method}(topic) above the function"
                if "sink" not in method
                else f"use app.{method}(topic, ...)",
            )
        return topic

    def _bind(self, binding: Binding) -> None:
        if self._sinks:
            raise self._mixed("a handler")
        check_function(self.name, binding)
        check_policy(self.name, binding.on_error)
        check_retries(self.name, binding)
        if not self._app.owns(binding.topic):
            raise ConfigError(f"group {self.name}: topic {binding.topic.name} belongs to another app")
        if (
            binding.on_error == "dead_letter"
            and binding.topic.name == GroupId(self._app.name, self.name).dead_letter_topic
        ):
            raise ConfigError(
                f"group {self.name} reads its own dead letters with on_error='dead_letter': a letter that fails would "
                "become a new letter each time",
                hint="declare on_error='stop' or 'skip' for that handler, or read them in another group",
            )
        if self._bindings and (binding.is_async or self._bindings[0].is_async):
            self._check_async(self._bindings[0], binding)
        others = [b for b in self._bindings if b.topic is binding.topic]
        if others and (binding.batch or others[0].batch):
            raise ConfigError(
                f"group {self.name}: topic {binding.topic.name} has a batch handler; it must be the only one"
            )
        for table in self._tables.values():
            if isinstance(table, DeclaredWindow):
                self._check_window(table, binding)
            elif table.fades or isinstance(table, DeclaredTimers):
                self._check_clock(table, binding)
        for step in self._steps.values():
            if isinstance(step.topic, TickTopic):
                self._check_plain(f"every, {step.topic.tick_name}", binding)
        self._bindings.append(binding)

    def _check_async(self, first: Binding, binding: Binding) -> None:
        """Check a handler that is added to others, some of which are async."""
        if first.is_async != binding.is_async:
            has, other = ("async", "a plain") if first.is_async else ("plain", "an async")
            raise ConfigError(
                f"group {self.name} has {has} handlers and cannot have {other} one: the handlers of a group are all "
                "async, or none of them is",
                hint='declare a group of its own for async handlers: app.group("scoring").async_handler(topic)',
            )
        if first.concurrency != binding.concurrency:
            raise ConfigError(
                f"group {self.name}: one async handler has concurrency={first.concurrency} and another one "
                f"{binding.concurrency}, but the handlers of a group share one limit",
                hint="give all of them the same number, or declare a group for each",
            )
        if any(other.topic is binding.topic for other in self._bindings):
            raise ConfigError(
                f"group {self.name}: topic {binding.topic.name} has an async handler; it must be the only one",
                hint="await both functions in one handler, or declare a group for each",
            )


class DeclaredGroup(Group):
    """A group with what was declared in it."""

    def __init__(
        self,
        app: _App,
        name: str,
        bindings: Iterable[Binding] = (),
        sinks: Iterable[SinkBinding] = (),
        tables: Mapping[str, DeclaredTable[Any, Any]] | None = None,
        tasks: int | None = None,
        steps: Mapping[str, Binding] | None = None,
        joins: Mapping[str, DeclaredJoin[Any, Any, Any]] | None = None,
        matches: Mapping[str, Binding] | None = None,
    ) -> None:
        self._app = app
        self._name = check_name("group", name)
        self.tasks = _checked_tasks(
            self._name, tasks
        )  # None: the default of a new group, or that of a known one
        self._bindings = list(bindings)
        self._sinks = list(sinks)
        self._tables = dict(tables or {})
        self._steps = dict(steps or {})
        self._joins = dict(joins or {})
        self._matches = dict(matches or {})

    def bind(self, binding: Binding) -> None:
        """Register a handler that was made elsewhere. Raises ConfigError."""
        self._bind(binding)

    def bind_step(self, binding: Binding) -> None:
        """Register the function of a due step that was made elsewhere."""
        self._steps[binding.topic.name] = binding

    def add_table(self, table: DeclaredTable[Any, Any]) -> None:
        """Declare a table that was made elsewhere. Raises ConfigError."""
        self._new_name("table", table.name, None)
        self._tables[table.name] = table

    @property
    def id(self) -> GroupId:
        """App and group."""
        return GroupId(self._app.name, self._name)

    @property
    def bindings(self) -> list[Binding]:
        """The handlers, in the order declared."""
        return self._bindings

    @property
    def sinks(self) -> list[SinkBinding]:
        """The sinks, in the order declared."""
        return self._sinks

    @property
    def is_async(self) -> bool:
        """Whether its handlers are async: either all are, or none of them is."""
        return bool(self._bindings) and self._bindings[0].is_async

    @property
    def tables(self) -> dict[str, DeclaredTable[Any, Any]]:
        """The tables, windows, histories and timers by name."""
        return self._tables

    @property
    def windows(self) -> dict[str, DeclaredWindow[Any, Any]]:
        """The windows by name."""
        return {name: table for name, table in self._tables.items() if isinstance(table, DeclaredWindow)}

    @property
    def timer_sets(self) -> dict[str, DeclaredTimers[Any]]:
        """The timers by name."""
        return {name: table for name, table in self._tables.items() if isinstance(table, DeclaredTimers)}

    @property
    def ticks(self) -> dict[str, TickTopic]:
        """What is called every so many seconds, by name."""
        topics = [binding.topic for binding in self._steps.values()]
        return {topic.tick_name: topic for topic in topics if isinstance(topic, TickTopic)}

    @property
    def steps(self) -> dict[str, Binding]:
        """The functions of due steps, such as ends of windows, by name of the pseudo-topic (`StepTopic`)."""
        return self._steps

    @property
    def histories(self) -> dict[str, DeclaredHistory[Any, Any]]:
        """The histories by name."""
        return {name: table for name, table in self._tables.items() if isinstance(table, DeclaredHistory)}

    @property
    def functions(self) -> list[Binding]:
        """The handlers, and then the functions of due steps."""
        return [*self._bindings, *self._steps.values()]

    @property
    def keeps_clock(self) -> bool:
        """Whether its partitions have a clock of event time. Without one, event time costs nothing."""
        timed = any(binding.topic.event_time_ms is not None for binding in self._bindings)
        fading = any(table.fades for table in self._tables.values())
        return bool(self.windows or self._joins or self.timer_sets) or fading or (timed and not self.is_async)

    @property
    def is_replayable(self) -> bool:
        """Whether its records alone determine its state: nothing depends on when an input was idle, or on the time."""
        return not (self.keeps_clock or self.ticks)

    @property
    def inputs(self) -> list[DeclaredTopic[Any, Any]]:
        """Input topics in the order of their first handler or sink."""
        return list(dict.fromkeys([b.topic for b in self._bindings] + [b.topic for b in self._sinks]))

    @property
    def joins(self) -> dict[str, DeclaredJoin[Any, Any, Any]]:
        """The joins by name."""
        return self._joins

    @property
    def matches(self) -> dict[str, Binding]:
        """The functions for the pairs of joins, by name of the join. Each is called with a pair and a context."""
        return self._matches

    def with_functions(self, change: Callable[[Binding], Binding]) -> DeclaredGroup:
        """The same group with other functions: `change` is called with each of `functions`, and with `matches`."""
        bindings = map(change, self._bindings)
        steps = {name: change(binding) for name, binding in self._steps.items()}
        matches = {name: change(binding) for name, binding in self._matches.items()}
        return self._twin(bindings, self.tasks, steps, matches)

    def with_tasks(self, tasks: int) -> DeclaredGroup:
        """The same group with another number of tasks."""
        return self._twin(self._bindings, tasks, self._steps, self._matches)

    def _twin(
        self,
        bindings: Iterable[Binding],
        tasks: int | None,
        steps: Mapping[str, Binding],
        matches: Mapping[str, Binding],
    ) -> DeclaredGroup:
        return DeclaredGroup(
            self._app, self._name, bindings, self._sinks, self._tables, tasks, steps, self._joins, matches
        )


def _checked_tasks(group: str, tasks: object) -> int | None:
    """The declared number of tasks. The number of partitions limits it, too: see `runtime/task_count.py`."""
    if tasks is None:
        return None
    if isinstance(tasks, bool) or not isinstance(tasks, int) or tasks < 1:
        raise ConfigError(
            f"group {group}: tasks is {tasks!r}; it must be a whole number from 1 to the number of partitions of its "
            "inputs",
            hint="declare a whole number, such as four times the most workers you will ever want, or leave tasks out",
        )
    return tasks
