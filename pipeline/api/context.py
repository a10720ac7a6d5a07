"""What a handler acts through: tables, outputs and resources of its task, valid during the call only.

`Context` is what users see. `RuntimeContext` is the object, with what the runtime reads and sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.api.declarations import (
    DeclaredResource,
    DeclaredTable,
    DeclaredTopic,
    Resource,
    Table,
    Topic,
    declared_topic,
)
from pipeline.api.encode_errors import LATEST_MS, REFUSALS, check_header_name, refuse_key, refuse_value
from pipeline.api.histories import DeclaredHistory, History
from pipeline.api.history_rows import RuntimeHistory, TaskHistory
from pipeline.api.table import RuntimeTable, TaskTable
from pipeline.api.task_timers import RuntimeTimers, TaskTimers
from pipeline.api.timers import DeclaredTimers, Timers
from pipeline.api.topic_limits import Accepted
from pipeline.api.window_rows import AnyWindow, TaskWindow
from pipeline.api.windows import DeclaredWindow, Window
from pipeline.core.event_time import EventClock
from pipeline.core.records import EARLIEST_MS, Record, kept_timestamp
from pipeline.errors import ConfigError

__all__ = [
    "Context",
    "MatchContext",
    "OutputContext",
    "RuntimeContext",
    "Sender",
    "not_a_table_of_the_group",
    "timestamp_of",
]

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")

NO_WINDOWS: Mapping[DeclaredWindow[Any, Any], AnyWindow] = {}
NO_HISTORIES: Mapping[DeclaredHistory[Any, Any], RuntimeHistory[Any, Any]] = {}
NO_JOINS: Mapping[Any, Any] = {}
NO_TIMERS: Mapping[DeclaredTimers[Any], RuntimeTimers[Any]] = {}

# name, key encoder, value codec's `admit`, what the topic accepts
Sender = tuple[str, Callable[[Any], bytes | None], Callable[[Any], tuple[bytes | None, Any]], Accepted]


class OutputContext:
    """What `Context` and `AsyncContext` have in common: outputs and resources."""

    __slots__ = ("_event_ms", "_message", "_outputs", "_resources", "_senders", "_used")

    if TYPE_CHECKING:  # set by RuntimeContext, and for each call of an async handler
        _event_ms: int | None
        _message: Any
        _outputs: list[Any]
        _resources: Callable[[DeclaredResource[Any]], Any]
        _senders: Mapping[DeclaredTopic[Any, Any], Sender]
        _used: dict[Any, Sender]

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Produce a record to a topic, as part of the commit of the record that is processed.

        Key and value are checked and encoded here, so a wrong one is an error of the record that is processed.

        Args:
            topic: A topic of this app.
            key: Of the topic's key type.
            value: Of the topic's value type.
            headers: Pairs of a name and bytes (or None), in order.
            timestamp_ms: Milliseconds since the epoch. Default: the timestamp of the input record, or its event time
                in a group that keeps a clock; at the end of a window, its last millisecond; of a timer, its due time.
                The Kafka client cannot send the timestamp 0; it is sent as 1.

        Raises:
            TypeError: The key, the value or a header has a wrong type.
            ValueError: The key or the value cannot be encoded, or the topic would refuse the size, the timestamp or
                a record without a key.
            OverflowError: A number is too large for its encoding.
            ConfigError: The topic is not a topic of this app. This stops the task, whatever `on_error` says.

        Example:
            ```python
            ctx.send(delays, event.key, Delay(12), headers=[("source", b"airline")])
            ```
        """
        try:
            name, encode_key, admit, accepted = self._used[topic]
        except (KeyError, TypeError):
            name, encode_key, admit, accepted = self._first_use(topic)
        try:
            key_data = encode_key(key)
        except REFUSALS as error:
            refuse_key(error, f"topic {name}", declared_topic(topic).key, key)
        try:
            data = admit(value)[0]
        except REFUSALS as error:
            refuse_value(error, f"topic {name}")
        if headers or len(data or b"") + len(key_data or b"") > accepted.most:
            headers = tuple(headers)  # the caller may change its list later
            _check_headers(headers)
            accepted.check_size(key_data, data, headers)
        if key_data is None and accepted.compacted:
            accepted.refuse_null_key()
        if timestamp_ms is None:
            timestamp_ms = self._event_ms
            if timestamp_ms is None:
                timestamp_ms = self._message.timestamp()[1]
            if timestamp_ms <= 0:  # a record without a timestamp gives the present
                timestamp_ms = EARLIEST_MS if self._event_ms == 0 else kept_timestamp(self._message)
        elif type(timestamp_ms) is not int or not 0 <= timestamp_ms <= LATEST_MS:
            raise ValueError(
                f"timestamp_ms is {timestamp_ms!r}; it must be a number of milliseconds, 0 or more, of 64 bits"
            )
        elif timestamp_ms == 0:
            timestamp_ms = EARLIEST_MS
        if timestamp_ms > accepted.surely_ms:
            accepted.check_time(timestamp_ms)
        self._outputs.append((name, key_data, data, timestamp_ms, headers))

    def resource(self, resource: Resource[R], /) -> R:
        """The worker's object of a resource. It is made when it is first asked for.

        Args:
            resource: What `app.resource(...)` returned.

        Returns:
            What the resource's factory returned in this worker.

        Raises:
            ConfigError: It is not a resource. This stops the task, whatever `on_error` says.
            Exception: Whatever the factory raises.

        Example:
            ```python
            response = ctx.resource(http).post("/charge", json={"order": event.key})
            ```
        """
        if not isinstance(resource, DeclaredResource):
            raise ConfigError(f"ctx.resource takes what app.resource(...) returned, not {resource!r}")
        result: R = self._resources(resource)
        return result

    def _first_use(self, topic: Any) -> Sender:
        try:
            sender = self._senders[topic]
        except (KeyError, TypeError):
            raise ConfigError(
                f"{topic!r} is not declared by this app",
                hint="ctx.send takes what app.topic(...) returned",
            ) from None
        self._used[topic] = sender
        return sender


class Context(OutputContext):
    """What a handler acts through: its task's tables, outputs and resources. The worker gives one to each call.

    Valid during the call only. Do not keep it: what is written after the call belongs to no record.

    Example:
        ```python
        @app.handler(orders)
        def bill(event: Event[str, Order], ctx: Context) -> None:
            totals = ctx.table(totals_by_customer)
            totals[event.key] = totals.get(event.key, 0) + event.value.amount
            ctx.send(bills, event.key, Bill(totals[event.key]))
        ```
    """

    __slots__ = ("_clock", "_firing", "_histories", "_joins", "_tables", "_time_of", "_timers", "_windows")

    if TYPE_CHECKING:  # set by RuntimeContext
        _clock: EventClock | None
        _histories: Mapping[DeclaredHistory[Any, Any], RuntimeHistory[Any, Any]]
        _joins: Mapping[Any, Any]  # RuntimeJoin by DeclaredJoin, which is not known here
        _tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]]
        _firing: bool
        _time_of: Callable[[Any], int]
        _timers: Mapping[DeclaredTimers[Any], RuntimeTimers[Any]]
        _windows: Mapping[DeclaredWindow[Any, Any], AnyWindow]

    @property
    def clock_ms(self) -> int:
        """The event clock of the record's partition, in milliseconds since the epoch; 0 before its first record.

        Up to this time, the input is complete, as far as that can be known. The record that is processed has not moved
        it yet. It never goes back.

        Raises:
            ConfigError: The group keeps no clock: it has no window, no history, no timers, and no input with
                `event_time_ms`. This stops the task, whatever `on_error` says.

        Example:
            ```python
            age_ms = ctx.clock_ms - event.timestamp_ms
            ```
        """
        clock = self._clock
        if clock is None:
            raise ConfigError(
                "this group keeps no clock of event time",
                hint="declare a window or timers, or event_time_ms for one of its input topics",
            )
        return clock.ms

    def timers(self, timers: Timers[K], /) -> TaskTimers[K]:
        """The timers of the record's partition: a mapping from keys to due times in milliseconds.

        Args:
            timers: What `app.timers(...)` or `group.timers(...)` returned.

        Returns:
            The timers, valid during the call. Assigning sets or moves a timer, `del` and `pop` cancel it.

        Raises:
            ConfigError: The timers belong to another group, or it is something else. This stops the task, whatever
                `on_error` says.

        Example:
            ```python
            ctx.timers(reminders)[event.key] = event.timestamp_ms + 900_000
            ```
        """
        try:
            return self._timers[timers]  # type: ignore[index]  # any other object is a KeyError
        except (KeyError, TypeError):
            if isinstance(timers, Timers):
                raise ConfigError(
                    f"timers {timers.group}.{timers.name} do not belong to the group of this handler",
                    hint="use timers declared on the handler's own group; groups exchange data through topics",
                ) from None
            raise ConfigError(f"ctx.timers takes what app.timers(...) returned, not {timers!r}") from None

    def window(self, window: Window[K, V], /) -> TaskWindow[K, V]:
        """The task's part of a window of this group.

        Args:
            window: What `app.window(...)` or `group.window(...)` returned.

        Returns:
            The rows of events, valid during the call.

        Raises:
            ConfigError: The window belongs to another group, or it is not a window. This stops the task, whatever
                `on_error` says.

        Example:
            ```python
            for row in ctx.window(hourly).rows(event):
                row.value += 1
            ```
        """
        try:
            return self._windows[window]  # type: ignore[index, return-value]  # any other object is a KeyError
        except (KeyError, TypeError):
            if not isinstance(window, Window):
                raise ConfigError(f"ctx.window takes what app.window(...) returned, not {window!r}") from None
            raise ConfigError(
                f"window {window.group}.{window.name} does not belong to the group of this handler",
                hint="use a window declared on the handler's own group; groups exchange data through topics",
            ) from None

    def history(self, history: History[K, V], /) -> TaskHistory[K, V]:
        """The task's part of a history of this group.

        Args:
            history: What `app.history(...)` or `group.history(...)` returned.

        Returns:
            The values of the task, valid during the call.

        Raises:
            ConfigError: The history belongs to another group, or it is not a history. This stops the task, whatever
                `on_error` says.

        Example:
            ```python
            ctx.history(recent).add(event, event.value.cents)
            ```
        """
        try:
            return self._histories[history]  # type: ignore[index]  # any other object is a KeyError
        except (KeyError, TypeError):
            if not isinstance(history, History):
                raise ConfigError(
                    f"ctx.history takes what app.history(...) returned, not {history!r}"
                ) from None
            raise ConfigError(
                f"history {history.group}.{history.name} does not belong to the group of this handler",
                hint="use a history declared on the handler's own group; groups exchange data through topics",
            ) from None

    def table(self, table: Table[K, V], /) -> TaskTable[K, V]:
        """The task's part of a table of this group.

        Args:
            table: What `app.table(...)` or `group.table(...)` returned.

        Returns:
            A mapping from keys to values, valid during the call.

        Raises:
            ConfigError: The table belongs to another group, or it is not a table. This stops the task, whatever
                `on_error` says.

        Example:
            ```python
            table = ctx.table(totals)
            table[event.key] = table.get(event.key, 0) + 1
            ```
        """
        try:
            return self._tables[table]  # type: ignore[index]  # any other object is a KeyError
        except (KeyError, TypeError):
            raise not_a_table_of_the_group(table, "ctx.table") from None


class RuntimeContext(Context):
    """The context of a task, with what the runtime needs of it.

    The attribute `message` is the input record that is processed. `event_ms`: its event time; None in a group without
    a clock. `time_of`: gives that of any event of the current topic. `firing`: whether a due step is processed, and no
    record. `kept`: what handlers of the package keep for the task, by owner. It ends with the task.
    """

    __slots__ = ("kept",)

    # The same slot under another name: a property would cost a call for each record.
    message: Any = Context._message  # type: ignore[misc]  # noqa: SLF001
    event_ms: Any = Context._event_ms  # type: ignore[misc]  # noqa: SLF001
    time_of: Any = Context._time_of  # type: ignore[misc]  # noqa: SLF001
    firing: Any = Context._firing  # type: ignore[misc]  # noqa: SLF001

    def __init__(
        self,
        tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]],
        senders: Mapping[DeclaredTopic[Any, Any], Sender],
        resources: Callable[[DeclaredResource[Any]], Any],
    ) -> None:
        self._tables = tables
        self._senders = senders
        self._used = {}  # those that something was sent to
        self._resources = resources
        self._outputs = []
        self._message = None
        self._windows = {}
        self._histories = {}
        self._joins = {}
        self._timers = {}
        self._firing = False
        self._clock = None
        self._event_ms = None
        self._time_of = timestamp_of
        self.kept: dict[Any, Any] = {}

    def use(
        self,
        tables: Mapping[DeclaredTable[Any, Any], RuntimeTable[Any, Any]],
        windows: Mapping[DeclaredWindow[Any, Any], AnyWindow] = NO_WINDOWS,
        clock: EventClock | None = None,
        histories: Mapping[DeclaredHistory[Any, Any], RuntimeHistory[Any, Any]] = NO_HISTORIES,
        joins: Mapping[Any, Any] = NO_JOINS,
        timers: Mapping[DeclaredTimers[Any], RuntimeTimers[Any]] = NO_TIMERS,
    ) -> None:
        """From now on, handlers see these, which belong to the partition of the next records."""
        self._tables = tables
        self._windows = windows
        self._histories = histories
        self._joins = joins
        self._clock = clock
        self._timers = timers

    def forward(
        self, topic: DeclaredTopic[Any, Any], record: Record, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Produce a record as it came, under other headers, with this commit.

        Raises ValueError when the topic would refuse it.
        """
        name, _, _, accepted = self._used.get(topic) or self._first_use(topic)
        key, value, timestamp_ms = record.key(), record.value(), kept_timestamp(record)
        accepted.check_size(key, value, headers)
        if key is None and accepted.compacted:
            accepted.refuse_null_key()
        accepted.check_time(timestamp_ms)
        self._outputs.append((name, key, value, timestamp_ms, headers))

    def value_decoder(self, topic: DeclaredTopic[Any, V]) -> Callable[[bytes | None], V]:
        """What decodes the value of `message`: the codec's own function, to avoid an extra call for each record."""
        with_message = topic.value.decode_message
        if with_message is None:
            return topic.value.decode
        return lambda data: with_message(data, self.message)

    @property
    def resources(self) -> Callable[[DeclaredResource[Any]], Any]:
        """What makes the worker's resources."""
        return self._resources

    @property
    def senders(self) -> Mapping[DeclaredTopic[Any, Any], Sender]:
        """What may be sent to."""
        return self._senders

    @property
    def used(self) -> dict[Any, Sender]:
        """The senders of the topics that something was sent to. Calls of async handlers share it."""
        return self._used

    @property
    def tables(self) -> Iterable[RuntimeTable[Any, Any]]:
        """The task's part of each table."""
        return self._tables.values()

    @property
    def written(self) -> list[str]:
        """The topics that something was sent to, since the task went live."""
        return [sender[0] for sender in self._used.values()]

    def take_outputs(self) -> list[Any]:
        """The outputs so far; a new list is open from here on."""
        outputs = self._outputs
        self._outputs = []
        return outputs

    @property
    def outputs(self) -> list[Any]:
        """The outputs of the open commit."""
        return self._outputs


class MatchContext(Context):
    """The context of a call with a pair of events: that of the record, but outputs have the later time of the two."""

    __slots__ = ()

    def __init__(self, context: Context, time_ms: int) -> None:
        for name in _SLOTS:
            setattr(self, name, getattr(context, name))
        self._event_ms = time_ms


_SLOTS = (*OutputContext.__slots__, *Context.__slots__)


def not_a_table_of_the_group(table: object, method: str) -> ConfigError:
    """The error for the argument of `method`, which is not a table of the handler's group."""
    if not isinstance(table, Table) or isinstance(table, Window | History | Timers):
        return ConfigError(f"{method} takes what app.table(...) returned, not {table!r}")
    return ConfigError(
        f"table {table.group}.{table.name} does not belong to the group of this handler",
        hint="use a table declared on the handler's own group; groups exchange data through topics",
    )


def timestamp_of(event: Any) -> int:
    """The event time of an event whose topic declares no other."""
    time_ms: int = event._message.timestamp()[1]  # noqa: SLF001 - a property would cost a call
    return time_ms


def _check_headers(headers: Sequence[tuple[str, bytes | None]]) -> None:
    for name, content in headers:
        if type(name) is not str or (content is not None and type(content) is not bytes):
            raise TypeError(f"a header is (str, bytes), not {(name, content)!r}")
        check_header_name(name)
