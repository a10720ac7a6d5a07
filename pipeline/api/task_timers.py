"""A partition's timers: `TaskTimers`, as a handler sees them, and `RuntimeTimers`, which is a source of due steps.

All due timers fire before the next record. So the clock says how far it may go before records must wait
(`EventClock.next_timer_ms`), and each timer that is set keeps this up to date. A due timer that is set while something
fires waits for the next commit, so that functions that set timers cannot stop the input.

A timer is removed before its function is called, in the undo log of the step:

    the function succeeds            the timer is gone, or it is the one that the function has set
    it raises, and is tried again    the removal is undone; the timer is due
    it raises, and its partition stops   the same
    it raises, and is skipped, or becomes a dead letter   the removal is undone, and then done again

Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.api.due_index import DueEntries
from pipeline.api.indexed_rows import RowPlace
from pipeline.api.table import RuntimeTable, table_prefix
from pipeline.api.timers import Armed, DeclaredTimers, TimerRecord, checked_due
from pipeline.core.event_time import EventClock

__all__ = ["RuntimeTimers", "TaskTimers"]

K = TypeVar("K")


class TaskTimers(MutableMapping[K, int]):
    """The timers of the record's partition, as a mapping from keys to due times in milliseconds.

    `ctx.timers(timers)` gives it; valid inside a handler only. Assigning sets or moves a timer; `del` and `pop` cancel
    it. A time in the past is allowed: the timer fires before the next record. What is set and cancelled is committed
    together with the record's outputs and positions.

    Iterating, `len` and `bool` read all timers of the partition, as they were at the time of the call.

    Example:
        ```python
        reminder = ctx.timers(reminders)
        reminder[event.key] = event.timestamp_ms + 900_000
        reminder.pop(event.key, None)  # cancels it
        ```
    """

    __slots__ = ("_clock", "_context", "_definition", "_entries", "_rows")

    if TYPE_CHECKING:  # set by RuntimeTimers
        _clock: EventClock
        _context: Any
        _definition: DeclaredTimers[K]
        _entries: DueEntries
        _rows: RuntimeTable[K, Armed]

    def __getitem__(self, key: K) -> int:
        """The time of a key's timer. Raises KeyError if it is not set; TypeError, ValueError for a wrong key."""
        armed = self._rows.get(key)
        if armed is None:
            raise KeyError(key)
        return armed.due_ms

    def __contains__(self, key: object) -> bool:
        """Whether a key's timer is set. Raises as `__getitem__`."""
        return key in self._rows

    def __setitem__(self, key: K, due_ms: int) -> None:
        """Set a key's timer, or move it. Raises TypeError, ValueError for a wrong key or time."""
        rows, entries, clock = self._rows, self._entries, self._clock
        checked_due(due_ms, self._definition.label)
        armed = rows.get(key)
        waits = due_ms <= clock.ms and self._context.firing
        if armed is not None:
            # An entry that the clock has passed may wait for the next commit, but this timer need not.
            if clock.ms < armed.indexed_ms <= due_ms:
                rows[key] = Armed(due_ms, armed.indexed_ms)
                return
            entries.remove(armed.indexed_ms, self._encoded(key))
        rows[key] = Armed(due_ms, due_ms)
        entries.add(due_ms, self._encoded(key), waits=waits)
        if not waits and due_ms < clock.next_timer_ms:
            clock.next_timer_ms = due_ms
            clock.next_due_ms = min(clock.next_due_ms, due_ms)

    def __delitem__(self, key: K) -> None:
        """Cancel a key's timer. Raises as `__getitem__`."""
        armed = self._rows.get(key)
        if armed is None:
            raise KeyError(key)
        self._entries.remove(armed.indexed_ms, self._encoded(key))
        del self._rows[key]

    def __iter__(self) -> Iterator[K]:
        """The keys whose timers are set, in the order of the keys' bytes."""
        return (key for key, _ in self._rows.items())

    def __len__(self) -> int:
        """How many timers of the partition are set. It reads all of them."""
        return sum(1 for _ in self)

    def _encoded(self, key: K) -> bytes:
        return self._definition.key.encode(key) or b""


class RuntimeTimers(TaskTimers[K]):
    """The timers of a partition, with what the runtime needs of them."""

    __slots__ = ("_failed", "_partition", "_undo")

    def __init__(
        self,
        definition: DeclaredTimers[K],
        place: RowPlace,
        context: Any,
    ) -> None:
        self._definition = definition
        self._context = context
        self._clock = place.clock
        self._partition = place.partition
        self._entries = place.index.entries(table_prefix(definition.name))
        self._rows = RuntimeTable(definition.rows, place.store, place.overlay, place.rows)
        self._undo = place.overlay.undo
        self._failed = False  # the function of the current step

    @property
    def rows(self) -> RuntimeTable[K, Armed]:
        """The stored rows."""
        return self._rows

    @property
    def next_ms(self) -> int:
        """The clock at which the first timer is due; `NEVER_MS` without one."""
        return self._entries.next_ms

    @property
    def changes(self) -> int:
        """None that matter: records wait for timers, so due ones cannot accumulate."""
        return 0

    def due(self, more: Callable[[], bool]) -> Iterator[TimerRecord | None]:
        """The due timers, in the order of time and key. A timer is removed before it is yielded.

        None: an entry was moved or removed. Ends when `more` says so. Raises CorruptStateError.
        """
        rows, entries, undo, name = self._rows, self._entries, self._undo, self._definition.fires.name
        decode_key, partition = self._definition.key.decode, self._partition
        for indexed_ms, encoded in entries.due(self._clock.ms):
            if not more():
                return
            key = decode_key(encoded)
            armed = rows.get(key)
            if armed is None or armed.indexed_ms != indexed_ms:
                entries.remove(indexed_ms, encoded)
                undo.clear()
                yield None
                continue
            due_ms = armed.due_ms
            if due_ms > indexed_ms:  # it was moved to a later time
                entries.remove(indexed_ms, encoded)
                entries.add(due_ms, encoded)
                rows[key] = Armed(due_ms, due_ms)
                undo.clear()
                yield None
                continue
            self._failed = False
            undo.append((self, None, None, None, False))
            entries.remove(due_ms, encoded)
            del rows[key]
            yield TimerRecord(name, partition, due_ms, encoded)
            if self._failed:  # and was skipped
                entries.remove(due_ms, encoded)
                del rows[key]
                undo.clear()

    def restore(self, _slot: Any, _value: Any, _data: Any, *, dirty: bool) -> None:
        """The step is undone: its function has raised."""
        self._failed = not dirty
