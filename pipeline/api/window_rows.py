"""A task's part of a window, as a handler sees it: the rows of an event.

The rows of one end are a small table (`_Bucket`), so writes, the undo log and memory work as in any table. A window
with an end up to `closed_ms` is closed: it is never written again, whether its rows are still stored or not. So it does
not matter when its rows are removed. Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from pipeline.api.closed_windows import CloseRecord
from pipeline.api.encode_errors import REFUSALS, refuse_event, refuse_value
from pipeline.api.event import Event
from pipeline.api.indexed_rows import RowPlace
from pipeline.api.table import (
    ABSENT,
    DATA,
    DIRTY,
    FULL_KEY,
    UNREAD,
    VALUE,
    ReadableStore,
    RuntimeTable,
    Slot,
    TaskOverlay,
    TaskTable,
    merge_rows,
    table_prefix,
)
from pipeline.api.windows import END_BYTES, AlignedWindow, DeclaredWindow, pack_end, unpack_end
from pipeline.core.event_time import NEVER_MS, EventClock
from pipeline.core.headers import headers_of

__all__ = ["AnyWindow", "RuntimeWindow", "TaskWindow", "WindowRow"]

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Any = object()


class WindowRow(Generic[K, V]):
    """A key in one window. Valid inside a handler only.

    Attributes:
        key: The key.

    Example:
        ```python
        for row in ctx.window(hourly).rows(event):
            row.value += 1
        ```
    """

    __slots__ = ("_bucket", "_slot", "key")

    if TYPE_CHECKING:  # set by RuntimeRow
        _bucket: _Bucket
        _slot: Slot
        key: K

    @property
    def start_ms(self) -> int:
        """The start of the window, in milliseconds since the epoch."""
        return self._bucket.end_ms - self._bucket.size_ms

    @property
    def end_ms(self) -> int:
        """Its end. An event at this time is in the next window."""
        return self._bucket.end_ms

    @property
    def value(self) -> V:
        """The value; the window's `default` until it is assigned. A change of it counts only when it is assigned.

        Assigning raises TypeError, ValueError or OverflowError for a value that the type does not allow.
        """
        bucket, slot = self._bucket, self._slot
        value: Any = slot[VALUE]
        if value is UNREAD:
            value = bucket.read(self.key, slot)
        if value is ABSENT:
            return bucket.initial()  # type: ignore[no-any-return]
        return value if bucket.fresh is None else bucket.fresh(value)  # type: ignore[no-any-return]

    @value.setter
    def value(self, value: V) -> None:
        # As `TaskTable.__setitem__` does for a key.
        bucket, slot = self._bucket, self._slot
        try:
            data, decoded = bucket.admitting(value)
        except REFUSALS as error:
            refuse_value(error, bucket.definition.label)
        dirty = slot[DIRTY]
        bucket.undo.append((bucket, slot, slot[VALUE], slot[DATA], dirty))
        bucket.overlay.written_bytes += len(data)
        slot[VALUE] = decoded if bucket.fresh is None else data
        slot[DATA] = data
        if not dirty:
            slot[DIRTY] = True
            bucket.dirty.append(slot)


class RuntimeRow(WindowRow[K, V]):
    """A row, as the runtime makes it. Raises as a table does for its key."""

    __slots__ = ()

    def __init__(self, bucket: _Bucket, key: K) -> None:
        self._bucket = bucket
        self._slot = bucket.slots.get(key) or bucket.add_slot(key)
        self.key = key


class TaskWindow(Generic[K, V]):
    """The task's part of a window. `ctx.window(window)` gives it; valid inside a handler only.

    Its writes are committed together with the record's outputs and positions.

    Example:
        ```python
        for row in ctx.window(hourly).rows(event):
            row.value = row.value.plus(event.value)
        ```
    """

    __slots__ = (
        "_bucket_of",
        "_buckets",
        "_clock",
        "_context",
        "_definition",
        "_grace_ms",
        "_late",
        "_late_events",
        "_mark_ms",
        "_size_ms",
        "_tumbling",
    )

    if TYPE_CHECKING:  # set by RuntimeWindow
        _bucket_of: Callable[[int], Any]
        _buckets: dict[int, Any]
        _clock: EventClock
        _context: Any
        _definition: Any
        _grace_ms: int
        _late: tuple[Any, int, Any]
        _late_events: int
        _mark_ms: int
        _size_ms: int
        _tumbling: bool

    @overload
    def rows(self, event: Event[K, Any], /) -> Sequence[WindowRow[K, V]]: ...

    @overload
    def rows(self, event: Event[Any, Any], /, *, key: K) -> Sequence[WindowRow[K, V]]: ...

    def rows(self, event: Event[Any, Any], /, *, key: Any = _MISSING) -> Sequence[WindowRow[K, V]]:
        """The rows of the event's windows that are still open, in order of their ends: one, or several of `Hopping`.

        If a window that the event belongs to is closed, the event is late for it: the window has no row, and the record
        is sent to `late_to`.

        Args:
            event: An event that the handler was given.
            key: The key in the window. Default: the event's key.

        Returns:
            The rows; empty if the event is late for all windows.

        Raises:
            ValueError: `late_to` would refuse the late record.

        Example:
            ```python
            for row in ctx.window(hourly).rows(event, key=event.value.customer):
                row.value += event.value.amount
            ```
        """
        context = self._context
        try:
            message = event._message  # noqa: SLF001
        except AttributeError:
            refuse_event(event, f"{self._definition.label}: rows")
        time_ms: int = context.event_ms if message is context.message else context.time_of(event)
        if key is _MISSING:
            key = event.key
        if self._tumbling:
            size_ms = self._size_ms
            end_ms = time_ms - time_ms % size_ms + size_ms
            # The mark is never above the clock, so a window that ends after the clock is open.
            if end_ms > self._clock.ms or end_ms > self._closed_ms():
                return (RuntimeRow(self._buckets.get(end_ms) or self._bucket_of(end_ms), key),)
            self._is_late(event, (end_ms - size_ms,))
            return ()
        return self._hops(event, key, time_ms, self._closed_ms())

    def get(self, key: K, /, *, at_ms: int) -> V | None:
        """The value of a key in the open window at a time.

        Args:
            key: Of the window's key type.
            at_ms: A time, in milliseconds since the epoch. Of several windows, the one that ends first counts.

        Returns:
            The value; None if the key has none, or if all windows at this time are closed.

        Raises:
            TypeError: The key has a wrong type.
            ValueError: The key cannot be encoded.

        Example:
            ```python
            so_far = ctx.window(hourly).get(event.key, at_ms=ctx.clock_ms)
            ```
        """
        closed_ms = self._closed_ms()
        for end_ms in self._definition.ends_at(at_ms):
            if end_ms > closed_ms:
                bucket = self._buckets.get(end_ms) or self._bucket_of(end_ms)
                slot = bucket.slots.get(key) or bucket.add_slot(key)
                value: Any = bucket.read(key, slot) if slot[VALUE] is UNREAD else slot[VALUE]
                if value is ABSENT:
                    return None
                found: V = value if bucket.fresh is None else bucket.fresh(value)
                return found
        return None

    def _closed_ms(self) -> int:
        return max(self._mark_ms, self._clock.ms - self._grace_ms)

    def _hops(
        self, event: Event[Any, Any], key: K, time_ms: int, closed_ms: int
    ) -> Sequence[WindowRow[K, V]]:
        buckets, bucket_of = self._buckets, self._bucket_of
        ends = self._definition.ends_at(time_ms)
        late = [end_ms for end_ms in ends if end_ms <= closed_ms]
        if late:
            self._is_late(event, [end_ms - self._size_ms for end_ms in late])
        return [
            RuntimeRow(buckets.get(end_ms) or bucket_of(end_ms), key) for end_ms in ends if end_ms > closed_ms
        ]

    def _is_late(self, event: Event[Any, Any], starts: Sequence[int]) -> None:
        """Count the event, and send its record to `late_to`: once, whatever several handlers do.

        `starts`: of the windows that it missed.
        """
        message, outputs = event._message, self._context.outputs  # noqa: SLF001
        known, place, output = self._late
        if message is known and place < len(outputs) and outputs[place] is output:
            return
        definition = self._definition
        if definition.late_to is not None:
            headers = [
                *headers_of(message),
                ("late-window", definition.name.encode()),
                ("late-starts", ",".join(map(str, starts)).encode()),
                ("late-topic", event.topic.encode()),
                ("late-partition", str(message.partition()).encode()),
                ("late-offset", str(message.offset()).encode()),
            ]
            self._context.forward(definition.late_to, message, headers)
            self._late = message, len(outputs) - 1, outputs[-1]
        self._late_events += 1


class AnyWindow(Protocol):
    """A task's part of a window of any size: what the runtime needs of it."""

    @property
    def definition(self) -> DeclaredWindow[Any, Any]:
        """The window."""
        ...

    @property
    def late_events(self) -> int:
        """How often an event was late."""
        ...

    @property
    def closed_ms(self) -> int:
        """The mark: what is due up to this time is closed."""
        ...

    @property
    def next_ms(self) -> int:
        """The clock at which the first row may be due."""
        ...

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes."""
        ...

    def due(self, more: Callable[[], bool]) -> Iterator[Any]:
        """What is closed, in order. Taking the next one removes the last one."""
        ...

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key."""
        ...

    def measure(self) -> int:
        """About the bytes that the values in memory take."""
        ...

    def trim(self, most_bytes: int) -> None:
        """Drop the oldest values that are not written."""
        ...


class _Bucket(RuntimeTable[Any, Any]):
    """The rows of one end. `initial`: makes the default value. `whole`: all of its rows are in memory."""

    __slots__ = ("end_ms", "initial", "size_ms", "whole")

    # The same slots under other names: a property would cost a call for each record.
    admitting: Any = TaskTable._admit  # type: ignore[misc]  # noqa: SLF001
    dirty: Any = TaskTable._dirty  # type: ignore[misc]  # noqa: SLF001
    fresh: Any = TaskTable._fresh  # type: ignore[misc]  # noqa: SLF001
    overlay: Any = TaskTable._overlay  # type: ignore[misc]  # noqa: SLF001
    slots: Any = TaskTable._slots  # type: ignore[misc]  # noqa: SLF001
    undo: Any = TaskTable._undo  # type: ignore[misc]  # noqa: SLF001

    def __init__(
        self,
        window: AlignedWindow[Any, Any],
        end_ms: int,
        store: ReadableStore,
        overlay: TaskOverlay,
        prefix: bytes,
    ) -> None:
        super().__init__(window.rows, store, overlay)
        self._prefix = prefix
        self.end_ms = end_ms
        self.size_ms = window.size_ms
        self.initial = window.initial
        self.whole = next(iter(store.scan(prefix)), None) is None

    def add_slot(self, key: Any) -> Slot:
        """A slot for a key that is not in memory. Raises as a table does for its key."""
        return self._add_slot(key)

    def read(self, key: Any, slot: Slot) -> Any:
        """The value of a slot that was not read yet."""
        if self.whole:
            slot[VALUE] = ABSENT
            return ABSENT
        return self._read(key, slot)

    def trim(self, most_bytes: int) -> None:
        """As for a table. Rows that are dropped must be read again."""
        self.whole = False
        super().trim(most_bytes)

    @property
    def changed(self) -> dict[bytes, bytes | None]:
        """The writes since the last seal, by full key."""
        return {slot[FULL_KEY]: slot[DATA] for slot in self._dirty}

    @property
    def changes(self) -> int:
        """Their number."""
        return len(self._dirty)

    @property
    def held(self) -> int:
        """The number of keys in memory."""
        return len(self._slots)


class RuntimeWindow(TaskWindow[K, V]):
    """A task's part of a window, with what the runtime needs of it. It is a source of due steps.

    Attributes:
        next_end_ms: No row that is stored has an earlier end, except those that are held back.
    """

    __slots__ = (
        "_cursor",
        "_deleted",
        "_overlay",
        "_partition",
        "_prefix",
        "_sealed",
        "_store",
        "next_end_ms",
    )

    def __init__(
        self,
        definition: AlignedWindow[K, V],
        place: RowPlace,
        context: Any,
        mark_ms: int,
    ) -> None:
        """`mark_ms`: the stored mark."""
        self._definition = definition
        self._store = store = place.store
        self._overlay = place.overlay
        self._context = context
        self._clock = place.clock
        self._mark_ms = mark_ms
        self._partition = place.partition
        self._grace_ms = definition.grace_ms
        self._size_ms = definition.size_ms
        self._tumbling = definition.every_ms == definition.size_ms
        self._bucket_of = self._new_bucket
        self._prefix = place.rows + table_prefix(definition.name)
        self._cursor = self._prefix  # all rows before it are removed
        self._buckets = {}
        self._deleted: dict[bytes, bytes | None] = {}  # since the last seal
        self._sealed: dict[int, dict[bytes, bytes | None]] = {}  # of the commit in progress, by end
        self._late = (
            None,
            0,
            None,
        )  # the last record that was sent to `late_to`, and its place among the outputs
        self._late_events = 0
        first = next(iter(store.scan(self._prefix)), None)
        self.next_end_ms = NEVER_MS if first is None else self._end_of(first[0])

    @property
    def definition(self) -> AlignedWindow[K, V]:
        """The window."""
        window: AlignedWindow[K, V] = self._definition
        return window

    @property
    def late_events(self) -> int:
        """How often an event was late for a window."""
        return self._late_events

    @property
    def closed_ms(self) -> int:
        """The windows that end up to this time are closed. It never goes back, also if `grace_s` is raised."""
        return self._closed_ms()

    @property
    def next_ms(self) -> int:
        """The clock at which the first row is due."""
        if self.next_end_ms == NEVER_MS:
            return NEVER_MS
        return self.next_end_ms + self._grace_ms if self.next_end_ms > self._mark_ms else 0

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes."""
        return sum(bucket.changes for bucket in self._buckets.values())

    @property
    def open_ends(self) -> Iterable[int]:
        """The ends of the rows in memory, in no order."""
        return self._buckets

    def stored_ends(self) -> list[int]:
        """The different ends of the rows that are stored, in order: a scan for each."""
        ends: list[int] = []
        start = self._prefix
        while (first := next(iter(self._store.scan(self._prefix, start)), None)) is not None:
            ends.append(self._end_of(first[0]))
            start = self._prefix + pack_end(ends[-1] + 1)
        return ends

    def bucket(self, end_ms: int) -> _Bucket:
        """The rows of one end."""
        bucket: _Bucket = self._buckets.get(end_ms) or self._new_bucket(end_ms)
        return bucket

    def due(self, more: Callable[[], bool]) -> Iterator[CloseRecord]:
        """The rows of closed windows, in the order of their ends and keys. Taking the next one removes the last one.

        Ends when `more` says so. Raises CorruptStateError.
        """
        closed_ms, partition, size_ms = self.closed_ms, self._partition, self._size_ms
        name, skip = self._definition.closes.name, len(self._prefix) + END_BYTES
        for full_key, data in self._due_rows(closed_ms):
            end_ms = self._end_of(full_key)
            if end_ms > closed_ms or not more():
                self._plan(end_ms, closed_ms)
                return
            yield CloseRecord(name, partition, end_ms, size_ms, full_key[skip:], data)
            self._deleted[full_key] = None
            self._cursor = full_key + b"\x00"
        self._plan(NEVER_MS, closed_ms)

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key."""
        writes: dict[bytes, bytes | None] = {}
        closed_ms, buckets, sealed = self.closed_ms, self._buckets, {}
        for end_ms, bucket in list(buckets.items()):
            if bucket.changes:
                taken = sealed[end_ms] = bucket.take_writes()
                writes.update(taken)
            if end_ms <= closed_ms:
                del buckets[
                    end_ms
                ]  # it is never read again; its rows are removed from what is sealed or stored
        writes.update(self._deleted)
        self._deleted, self._sealed = {}, sealed
        return writes

    def measure(self) -> int:
        """About the bytes that the values in memory take."""
        buckets = self._buckets
        if not buckets:
            return 0
        sampled = next(reversed(buckets.values()))
        each = sampled.measure() / sampled.held if sampled.held else 0.0
        return int(each * sum(bucket.held for bucket in buckets.values()))

    def trim(self, most_bytes: int) -> None:
        """Drop the oldest values that are not written, until about `most_bytes` are taken."""
        excess = self.measure() - most_bytes
        for bucket in self._buckets.values():
            if excess <= 0:
                return
            before = bucket.measure()
            bucket.trim(max(0, before - excess))
            excess -= before - bucket.measure()

    def _new_bucket(self, end_ms: int) -> _Bucket:
        prefix = self._prefix + pack_end(end_ms)
        bucket = _Bucket(self._definition, end_ms, self._store, self._overlay, prefix)
        self._buckets[end_ms] = bucket
        if end_ms < self.next_end_ms:
            self.next_end_ms = end_ms
            self._clock.next_due_ms = min(self._clock.next_due_ms, end_ms + self._grace_ms)
        return bucket

    def _due_rows(self, closed_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """The stored rows from the cursor on, and the due ones that are not stored yet."""
        changed: dict[bytes, bytes | None] = {}
        if self._overlay.sealed:
            for end_ms, writes in self._sealed.items():
                if end_ms <= closed_ms:
                    changed.update(writes)
        for end_ms, bucket in self._buckets.items():
            if end_ms <= closed_ms and bucket.changes:
                changed.update(bucket.changed)
        cursor = self._cursor
        waiting = sorted((key, data) for key, data in changed.items() if key >= cursor)
        return merge_rows(self._store.scan(self._prefix, cursor), waiting)

    def _plan(self, found_ms: int, closed_ms: int) -> None:
        """`found_ms`: the end of the first row that is left, as far as rows are stored."""
        self.next_end_ms = min([found_ms, *[end_ms for end_ms in self._buckets if end_ms > closed_ms]])

    def _end_of(self, full_key: bytes) -> int:
        return unpack_end(full_key[len(self._prefix) :])
