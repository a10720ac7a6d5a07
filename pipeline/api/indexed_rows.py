"""Rows with an entry in the index of what is due: `IndexedTable`, a task's part of them.

The content of a row decides when it is due, and may change with each record. So the entry of a row may be too early,
never too late: an extension of a session writes one row, not three. When such an entry is reached, it is moved.

    prefix, key -> the time of its entry, and the content

Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.api.declarations import DeclaredTable
from pipeline.api.due_index import DueIndex
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
    table_prefix,
)
from pipeline.core.event_time import NEVER_MS, EventClock

__all__ = ["IndexedRow", "IndexedTable", "RowPlace", "content_of"]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where the rows of a partition are, and its clock. `rows`: the beginning of their keys."""

    store: ReadableStore
    overlay: TaskOverlay
    index: DueIndex
    clock: EventClock
    partition: int
    rows: bytes


class IndexedRow(NamedTuple):
    """A row in memory. `due_ms`: the time of its entry."""

    due_ms: int
    content: Any


class IndexedTable(RuntimeTable[Any, Any]):
    """The rows of one declaration in one partition. The value of a slot is an `IndexedRow`, or ABSENT.

    `unpack`: the time of the entry of a stored row, and its content; `pack`: the reverse. `size`: about the bytes of a
    content. `wait_ms`: the steps of a row are fired when the clock has passed the time of its entry by so much.
    """

    __slots__ = ("_by_steps", "_clock", "_entries", "_pack", "_size", "_unpack", "_wait_ms")

    def __init__(
        self,
        definition: DeclaredTable[Any, Any],
        place: RowPlace,
        unpack: Callable[[bytes], tuple[int, Any]],
        pack: Callable[[int, Any], bytes],
        size: Callable[[Any], int],
        wait_ms: int,
    ) -> None:
        super().__init__(definition, place.store, place.overlay, place.rows)
        self._unpack = unpack
        self._pack = pack
        self._size = size
        self._decode = self._row
        self._fresh = None
        self._entries = place.index.entries(table_prefix(definition.name))
        self._clock = place.clock
        self._wait_ms = wait_ms
        self._by_steps = 0  # rows that the open commit writes because of due steps

    @property
    def first_ms(self) -> int:
        """The time of the first entry; `NEVER_MS` without entries."""
        return self._entries.next_ms

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes because of records. Steps must not make room for steps."""
        return len(self._dirty) - self._by_steps

    def key_of(self, slot: Slot) -> bytes:
        """The encoded key."""
        full_key: bytes = slot[FULL_KEY]
        return full_key[len(self._prefix) :]

    def found(self, key: Any) -> Slot:
        """The slot of a key, which was read. Raises as a table does for its key."""
        slot = self._slots.get(key) or self._add_slot(key)
        if slot[VALUE] is UNREAD:
            self._read(key, slot)
        return slot

    def write(self, slot: Slot, content: Any, first_ms: int, size: int) -> None:
        """Set the content of a row, for the current record. `first_ms`: when it is due. `size`: of what is new.

        A row is written as a whole, once in a commit.
        """
        before, dirty = slot[VALUE], slot[DIRTY]
        self._undo.append((self, slot, before, None, dirty))
        self._overlay.written_bytes += size if dirty else self._size(content)
        due_ms = NEVER_MS if before is ABSENT else before.due_ms
        if first_ms < due_ms:
            key = self.key_of(slot)
            if due_ms != NEVER_MS:
                self._entries.remove(due_ms, key)
            self._entries.add(first_ms, key)
            due_ms = first_ms
            self._clock.next_due_ms = min(self._clock.next_due_ms, due_ms + self._wait_ms)
        slot[VALUE] = IndexedRow(due_ms, content)
        self._note_dirty(slot, dirty=dirty)

    def due_rows(self, until_ms: int) -> Iterator[tuple[Slot, int, Any]]:
        """The rows with an entry up to `until_ms`, in order of time and key: slot, time and content of each.

        The caller calls `settle` for a row, or leaves the iterator. A row whose entry stays is given again. Raises
        CorruptStateError.
        """
        decode_key = self._definition.key.decode
        for due_ms, key in self._entries.due(until_ms):
            slot = self.found(decode_key(key))
            if not _is_due(slot, due_ms):
                self._entries.remove(due_ms, key)  # it has no row
            while _is_due(slot, due_ms):
                yield slot, due_ms, slot[VALUE].content

    def settle(self, slot: Slot, content: Any, first_ms: int) -> None:
        """Set the content after a step that has succeeded or was skipped. None removes the row. It is not undone."""
        before: IndexedRow = slot[VALUE]
        if content is None:
            first_ms = NEVER_MS
        if first_ms != before.due_ms:
            key = self.key_of(slot)
            self._entries.remove(before.due_ms, key)
            if first_ms != NEVER_MS:
                self._entries.add(first_ms, key)
        slot[VALUE] = ABSENT if content is None else IndexedRow(first_ms, content)
        if not slot[DIRTY]:
            self._note_dirty(slot, dirty=False)
            self._by_steps += 1
            self._overlay.written_bytes += 0 if content is None else self._size(content)
        self._undo.clear()

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes of rows since the last call, by full key. Those of the index are taken from it."""
        writes: dict[bytes, bytes | None] = {}
        for slot in self._dirty:
            row: Any = slot[VALUE]
            writes[slot[FULL_KEY]] = None if row is ABSENT else self._pack(*row)
            slot[DATA], slot[DIRTY] = None, False
        self._dirty, self._by_steps = [], 0
        return writes

    def _note_dirty(self, slot: Slot, *, dirty: bool) -> None:
        if not dirty:
            slot[DIRTY] = True
            self._dirty.append(slot)

    def _row(self, data: Any) -> IndexedRow:
        """A stored row."""
        return IndexedRow(*self._unpack(data))


def content_of(slot: Slot) -> Any:
    """The content of a row that was read; None if there is no row."""
    row: Any = slot[VALUE]
    return None if row is ABSENT else row.content


def _is_due(slot: Slot, due_ms: int) -> bool:
    """Whether a row has its entry at this time."""
    row: Any = slot[VALUE]
    return row is not ABSENT and row.due_ms == due_ms
