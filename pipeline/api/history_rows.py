"""A task's part of a history, as a handler sees it: values are added, and read by event time.

A value is too old if its time is below `oldest_ms`: the clock less `keep_s`, which never goes back. It is then neither
added nor read, whether its bucket is still stored or not. So results do not depend on when buckets are removed. Used by
the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pipeline.api.encode_errors import REFUSALS, refuse_event, refuse_value
from pipeline.api.event import Event
from pipeline.api.histories import DeclaredHistory
from pipeline.api.table import ABSENT, DATA, DIRTY, UNREAD, VALUE
from pipeline.api.window_rows import RuntimeWindow
from pipeline.core.histories import add_value, values_in

__all__ = ["RuntimeHistory", "TaskHistory"]

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Any = object()


class TaskHistory(Generic[K, V]):
    """The task's part of a history. `ctx.history(history)` gives it; valid inside a handler only.

    Its writes are committed together with the record's outputs and positions.

    Example:
        ```python
        payments = ctx.history(recent)
        payments.add(event, event.value.cents)
        spent = sum(cents for _, cents in payments.between(event.key, at_ms - 600_000, at_ms))
        ```
    """

    __slots__ = (
        "_admit",
        "_context",
        "_decode",
        "_definition",
        "_keep_ms",
        "_late",
        "_most",
        "_removed",
        "_rows",
        "_size_ms",
        "_stored_ends",
    )

    if TYPE_CHECKING:  # set by RuntimeHistory
        _admit: Callable[[V], tuple[bytes | None, V]]
        _context: Any
        _decode: Callable[[bytes], V]
        _definition: DeclaredHistory[K, V]
        _keep_ms: int
        _late: int
        _most: int
        _removed: int
        _rows: RuntimeWindow[Any, Any]
        _size_ms: int
        _stored_ends: list[int] | None

    @overload
    def add(self, event: Event[K, Any], value: V, /) -> bool: ...

    @overload
    def add(self, event: Event[Any, Any], value: V, /, *, key: K) -> bool: ...

    def add(self, event: Event[Any, Any], value: V, /, *, key: Any = _MISSING) -> bool:
        """Add a value at the time of an event.

        A value whose time is more than `keep_s` before the event clock is too old: it is not added, and counted as a
        late event. If the key has `max_values` values in the half of `keep_s` that the time is in, the oldest of them
        is removed, and counted.

        Args:
            event: An event that the handler was given.
            value: Of the history's value type.
            key: The key. Default: the event's key.

        Returns:
            Whether it was added: False if it is too old.

        Raises:
            TypeError: The key or the value has a wrong type.
            ValueError: The key or the value cannot be encoded.
            OverflowError: A number is too large for its encoding.

        Example:
            ```python
            ctx.history(recent).add(event, event.value.cents)
            ```
        """
        context = self._context
        try:
            message = event._message  # noqa: SLF001 - a property would cost a call for each record
        except AttributeError:
            refuse_event(event, f"{self._definition.label}: add")
        time_ms: int
        if message is not context.message:
            time_ms = context.time_of(event)
        elif context.event_ms is None:  # a due step, such as the end of a window
            time_ms = message.timestamp()[1]
        else:
            time_ms = context.event_ms
        if key is _MISSING:
            key = event.key
        try:
            encoded: Any = self._admit(value)[0]
        except REFUSALS as error:
            refuse_value(error, self._definition.label)
        rows = self._rows
        # The mark is never above the clock less keep_s, and a bucket ends after its times.
        if time_ms < rows.closed_ms:
            self._late += 1
            return False
        bucket = rows.bucket(time_ms - time_ms % self._size_ms + self._size_ms)
        slot = bucket.slots.get(key) or bucket.add_slot(key)
        stored = slot[VALUE]
        if stored is UNREAD:
            stored = bucket.read(key, slot)
        data, removed = add_value(None if stored is ABSENT else stored, time_ms, encoded, self._most)
        self._removed += removed
        dirty = slot[DIRTY]
        bucket.undo.append((bucket, slot, slot[VALUE], slot[DATA], dirty))
        bucket.overlay.written_bytes += len(encoded) if dirty else len(data)
        slot[VALUE] = slot[DATA] = data
        if not dirty:
            slot[DIRTY] = True
            bucket.dirty.append(slot)
        return True

    def between(self, key: K, from_ms: int, to_ms: int, /) -> Iterator[tuple[int, V]]:
        """The values of a key in a range of event time, of those that are not too old.

        Args:
            key: Of the history's key type.
            from_ms: The first time, in milliseconds since the epoch.
            to_ms: The last time. It is included.

        Returns:
            An iterator over (time in ms, value) in order of time. Values of one time are in the order in which they
            were added. Later writes do not change it.

        Raises:
            TypeError: The key has a wrong type.
            ValueError: The key cannot be encoded.

        Example:
            ```python
            hour = [value for _, value in ctx.history(recent).between(event.key, at_ms - 3_600_000, at_ms)]
            ```
        """
        rows, decode = self._rows, self._decode
        from_ms = max(from_ms, rows.closed_ms)
        found: list[tuple[int, bytes]] = []
        for end_ms in self._ends_after(from_ms):
            bucket = rows.bucket(end_ms)
            slot = bucket.slots.get(key) or bucket.add_slot(key)
            data = bucket.read(key, slot) if slot[VALUE] is UNREAD else slot[VALUE]
            if data is not ABSENT:
                found += [item for item in values_in(data) if from_ms <= item[0] <= to_ms]
        found.sort(key=_time)  # buckets overlap after a change of keep_s; otherwise it is in order already
        return iter([(time_ms, decode(value)) for time_ms, value in found])

    def _ends_after(self, time_ms: int) -> list[int]:
        """The ends of the buckets that may have values from this time on, in order."""
        if self._stored_ends is None:
            self._stored_ends = self._rows.stored_ends()
        self._stored_ends = [end_ms for end_ms in self._stored_ends if end_ms > self._rows.closed_ms]
        return sorted(
            {
                end_ms
                for ends in (self._stored_ends, self._rows.open_ends)
                for end_ms in ends
                if end_ms > time_ms
            }
        )


class RuntimeHistory(TaskHistory[K, V]):
    """A task's part of a history, with what the runtime needs of it. `rows`: its buckets, as a window."""

    __slots__ = ()

    def __init__(
        self, definition: DeclaredHistory[K, V], rows: RuntimeWindow[Any, Any], context: Any
    ) -> None:
        self._definition = definition
        self._rows = rows
        self._context = context
        self._admit = definition.values.admit
        self._decode = definition.values.decode
        self._keep_ms = definition.keep_ms
        self._size_ms = definition.buckets.size_ms
        self._most = definition.most
        self._late = 0
        self._removed = 0
        self._stored_ends = None

    @property
    def late_events(self) -> int:
        """How often a value was too old to be added."""
        return self._late

    @property
    def removed_values(self) -> int:
        """How often a value was removed because its key had too many."""
        return self._removed


def _time(item: tuple[int, bytes]) -> int:
    return item[0]
