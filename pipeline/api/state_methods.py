"""The methods of `App` and `Group` that declare states: tables, windows, histories, joins and timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import TypeForm

from pipeline.api.bindings import RETRY_DELAY_S, OnError
from pipeline.api.codecs import CodecName, resolve_value
from pipeline.api.custom_codecs import Codec
from pipeline.api.declarations import DeclaredTable, Table, Topic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.expiring_rows import ExpiringTable
from pipeline.api.histories import MOST_VALUES, DeclaredHistory, History
from pipeline.api.joins import MOST_EVENTS, DeclaredJoin, Join, Owner, Policy
from pipeline.api.keys import resolve_key
from pipeline.api.timers import DeclaredTimers, Timers
from pipeline.api.windows import Hopping, Sessions, Tumbling, Window, WindowOptions, declared_window
from pipeline.errors import ConfigError

__all__ = ["StateMethods"]

K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")
R = TypeVar("R")


class StateMethods:
    """Declares states in one group: the main group of an `App`, or that of a `Group`."""

    _group: DeclaredGroup

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
            carts = app.table("carts", key=str, value=Cart, ttl_s=86_400)  # a day after the last write

            # after a change of the type: earlier values were Structs with the field `amount`, in euros
            totals = app.table("totals", key=str, value=Cents, upgrade=lambda old: Cents(old["amount"] * 100))
            ```
        """
        group = self._group
        where = group.new_name("table", name, upgrade)
        keys = resolve_key(key, where, tombstones=False)
        values = resolve_value(value, codec, where, tombstones=False)
        table: DeclaredTable[K, V]
        if ttl_s is None:
            table = DeclaredTable(group.name, name, keys, values, upgrade)
        else:
            table = ExpiringTable(group.name, name, keys, values, upgrade, ttl_s)
            for binding in group.bindings:
                group.check_clock(table, binding)
        group.tables[name] = table
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
        group = self._group
        where = group.new_name("window", name, upgrade)
        options: WindowOptions[K, V] = WindowOptions(
            resolve_key(key, where, tombstones=False),
            resolve_value(value, codec, where, tombstones=False),
            (key, value),
            grace_s,
            default,
            late_to,
            upgrade,
        )
        window = declared_window(group.name, name, size, options)
        if late_to is not None and not group.app.owns(late_to):
            raise ConfigError(f"{where}: late_to is topic {late_to.name} of another app")
        for binding in group.bindings:
            group.check_window(window, binding)
        group.tables[name] = window
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
        group = self._group
        where = group.new_name("history", name, upgrade)
        history: DeclaredHistory[K, V] = DeclaredHistory(
            group.name,
            name,
            resolve_key(key, where, tombstones=False),
            resolve_value(value, codec, where, tombstones=False),
            upgrade,
            keep_s=keep_s,
            max_values=max_values,
        )
        for binding in group.bindings:
            group.check_clock(history, binding)
        group.tables[name] = history
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
        group = self._group
        group.new_name("join", name, None)
        join: DeclaredJoin[K, L, R] = DeclaredJoin(
            Owner(group.name, group.bind_match, group.bind_unmatched),
            name,
            left,
            right,
            Policy(on_error, retries, retry_delay_s),
            within_s=within_s,
            grace_s=grace_s,
            max_events=max_events,
        )
        for binding in join.bindings():
            group.bind(binding)
        for side in join.sides:
            group.tables[side.name] = side
        group.joins[name] = join
        return join

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
        group = self._group
        where = group.new_name("timers", name, None)
        timers: DeclaredTimers[K] = DeclaredTimers(
            group.name, name, resolve_key(key, where, tombstones=False), key
        )
        for binding in group.bindings:
            group.check_clock(timers, binding)
        group.tables[name] = timers
        return timers
