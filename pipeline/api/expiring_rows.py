"""Tables with a time-to-live: `ExpiringTable`, as declared, and a task's part of it, `RuntimeExpiringTable`.

Handlers see the interface of any table. An expired row is hidden at once, and deleted later by a due step, without a
call of a function. What is visible depends on the clock and on the time of the last write only, so it does not matter
when rows are deleted. `core/expiry.py` has the format and its invariant. Used by the processing thread alone.

In memory, a value is a pair of what a table keeps and the time of its last write. So the undo log restores both. A slot
also has the time of its entry in the index. Entries are written when the commit is sealed, one for a new row, however
often it was written. A row that was written without being read is read then, together with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.api.closed_windows import CloseRecord
from pipeline.api.codecs import ValueCodec
from pipeline.api.declarations import LONGEST_TTL_S, DeclaredTable
from pipeline.api.encode_errors import REFUSALS, refuse_value
from pipeline.api.indexed_rows import RowPlace
from pipeline.api.keys import KeyCodec
from pipeline.api.table import (
    ABSENT,
    DATA,
    DIRTY,
    FULL_KEY,
    UNREAD,
    VALUE,
    RuntimeTable,
    Slot,
    merge_rows,
    table_prefix,
)
from pipeline.core.event_time import ClockState
from pipeline.core.expiry import EXPIRING_SCHEMA, mark_at, pack_row, row_value, stamps_of
from pipeline.errors import ConfigError

__all__ = ["ExpiringTable", "RuntimeExpiringTable", "expiring_topic"]

K = TypeVar("K")
V = TypeVar("V")

INDEXED = 4  # of a slot: the time of the row's entry in the index; 0 if it has none
_UNKNOWN = -1  # the row was written without being read
_NONE = 0
_CHUNK = 256  # rows that a due step reads at once


def expiring_topic(table: str) -> str:
    """The pseudo-topic of the due steps of a table."""
    return f"@ttl/{table}"


class ExpiringTable(DeclaredTable[K, V]):
    """A table with a time-to-live. `ttl_ms`: since the last write, on the event clock."""

    __slots__ = ("ttl_ms",)

    def __init__(
        self,
        group: str,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        upgrade: Callable[[Any], V] | None,
        ttl_s: object,
    ) -> None:
        super().__init__(group, name, key, value, upgrade)
        if type(ttl_s) not in {int, float} or not 0.001 <= ttl_s <= LONGEST_TTL_S:  # type: ignore[operator]
            raise ConfigError(
                f"{self.label}: ttl_s is {ttl_s!r}; it must be a number of seconds, 0.001 to {LONGEST_TTL_S:,}",
                hint="it is how long a row is kept after its last write, in event time",
            )
        self.ttl_ms: int = round(ttl_s * 1000)  # type: ignore[operator]

    @property
    def key_fingerprint(self) -> str:
        """What the fingerprint begins with. A release without such tables refuses it as another key."""
        return EXPIRING_SCHEMA + super().key_fingerprint

    @property
    def fades(self) -> bool:
        """Rows are hidden before they are deleted."""
        return True

    def visible(self, data: bytes, clock: ClockState) -> bytes | None:
        """The encoded value; None if the row has expired."""
        written_ms, _ = stamps_of(data)
        return None if written_ms <= mark_at(clock, self.name, self.ttl_ms) else row_value(data)

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> Any:
        """The value of a stored row, whether it has expired or not."""
        return decode(row_value(data))


class RuntimeExpiringTable(RuntimeTable[K, V]):
    """A task's part of a table with a time-to-live. It is a source of due steps, without a function."""

    __slots__ = (
        "_by_steps",
        "_clock",
        "_context",
        "_entries",
        "_finished",
        "_mark_ms",
        "_partition",
        "_skip",
        "_ttl_ms",
    )

    def __init__(self, definition: ExpiringTable[K, V], place: RowPlace, context: Any, mark_ms: int) -> None:
        """`mark_ms`: the mark at the stored state of the clock."""
        super().__init__(definition, place.store, place.overlay, place.rows)
        self._context = context
        self._clock = place.clock
        self._entries = place.index.entries(table_prefix(definition.name))
        self._partition = place.partition
        self._skip = len(self._prefix)
        self._ttl_ms = definition.ttl_ms
        self._mark_ms = mark_ms
        self._finished: list[Any] = []  # keys of rows that were deleted since the last seal
        self._by_steps = 0  # rows that the open commit writes because of due steps

    @property
    def closed_ms(self) -> int:
        """The mark: rows that were written up to this time have expired."""
        return max(self._mark_ms, self._clock.ms - self._ttl_ms)

    @property
    def changes(self) -> int:
        """The number of rows that handlers have written since the last seal."""
        return len(self._dirty) - self._by_steps

    @property
    def next_ms(self) -> int:
        """The clock at which the first entry of the index is due."""
        return self._entries.next_ms

    def get(self, key: Any, default: Any = None) -> Any:
        """As in any table. A row that has expired has no value."""
        kept = self._alive(key)
        if kept is ABSENT:
            return default
        return kept if self._fresh is None else self._fresh(kept)

    def __contains__(self, key: object) -> bool:
        return self._alive(key) is not ABSENT

    def __setitem__(self, key: K, value: V) -> None:
        # As `TaskTable.__setitem__`, with the time of the write.
        try:
            data, decoded = self._admit(value)
        except REFUSALS as error:
            refuse_value(error, self._definition.label)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._add_slot(key)
        dirty = slot[DIRTY]
        self._undo.append((self, slot, slot[VALUE], slot[DATA], dirty))
        self._overlay.written_bytes += len(data)  # type: ignore[arg-type]  # a table's codec has no tombstones
        now_ms, event_ms = self._clock.ms, self._context.event_ms
        if event_ms is None:
            if now_ms == 0:  # `every`, before the first record: the wall clock is never too early
                now_ms = self._context.message.timestamp()[1]
        elif event_ms > now_ms:  # the clock is that before the record
            now_ms = event_ms
        slot[VALUE] = (decoded if self._fresh is None else data), now_ms
        slot[DATA] = data
        if not dirty:
            slot[DIRTY] = True
            self._dirty.append(slot)

    def items(self, *, prefix: K | tuple[Any, ...] | None = None) -> Iterator[tuple[K, V]]:
        """As in any table, without the rows that have expired at the time of the call."""
        start = self._prefix + (b"" if prefix is None else self._definition.key.prefix(prefix))
        changed = {k: v for k, v in self._overlay.sealed.items() if k.startswith(start)}
        for slot in self._dirty:
            if slot[FULL_KEY].startswith(start):
                value = slot[VALUE]
                changed[slot[FULL_KEY]] = None if value is ABSENT else pack_row(value[1], _NONE, slot[DATA])
        pairs = merge_rows(self._store.scan(start), sorted(changed.items()))
        mark_ms = self.closed_ms
        return self._decoded((key, row_value(data)) for key, data in pairs if stamps_of(data)[0] > mark_ms)

    def due(self, more: Callable[[], bool]) -> Iterator[CloseRecord]:
        """Delete the rows that have expired, and give the others a later entry. Yields a step for each due entry.

        The entries of a chunk are removed before its rows are read at once. All of them are finished by then, because
        `more` has allowed them, and no function can fail.
        """
        decode_key, entries, until_ms = self._definition.key.decode, self._entries, self._clock.ms
        topic = expiring_topic(self._definition.name)
        while True:
            chunk: dict[Any, list[int]] = {}
            found = entries.due(until_ms)
            while len(chunk) < _CHUNK:
                if not more():
                    break
                first = next(found, None)
                if first is None:
                    break
                entries.remove(*first)
                chunk.setdefault(decode_key(first[1]), []).append(first[0])
            if not chunk:
                return
            self._load(chunk)
            for key, due_ms in chunk.items():
                self._finish(key, due_ms)
                for each_ms in due_ms:
                    yield CloseRecord(topic, self._partition, each_ms, 0, b"", b"")

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key, and the entries that these rows need."""
        writes: dict[bytes, bytes | None] = {}
        entries, skip, ttl_ms = self._entries, self._skip, self._ttl_ms
        self._resolve([slot for slot in self._dirty if slot[INDEXED] == _UNKNOWN])
        for slot in self._dirty:
            full_key, value, indexed_ms = slot[FULL_KEY], slot[VALUE], slot[INDEXED]
            if value is ABSENT:
                if indexed_ms:
                    entries.remove(indexed_ms, full_key[skip:])
                    slot[INDEXED] = _NONE
                writes[full_key] = None
            else:
                due_ms = value[1] + ttl_ms
                if indexed_ms > due_ms:  # the time-to-live was lowered, or the inputs are apart
                    entries.remove(indexed_ms, full_key[skip:])
                    indexed_ms = _NONE
                if not indexed_ms:
                    slot[INDEXED] = indexed_ms = due_ms
                    entries.add(due_ms, full_key[skip:])
                writes[full_key] = pack_row(value[1], indexed_ms, slot[DATA])
            slot[DATA] = None
            slot[DIRTY] = False
        self._dirty, self._by_steps = [], 0
        for key in self._finished:
            if self._slots[key][VALUE] is ABSENT:
                del self._slots[key]  # the sealed overlay has no row of it, and then the store has none
        self._finished = []
        self._undo.clear()  # no record can take the entries back
        return writes

    def _alive(self, key: Any) -> Any:
        """What is kept of the value of a key; ABSENT if it has none, or if its row has expired."""
        slot = self._slots.get(key)
        value = self._read(key, slot) if slot is None or slot[VALUE] is UNREAD else slot[VALUE]
        if value is ABSENT or value[1] <= self.closed_ms:
            return ABSENT
        return value[0]

    def _add_slot(self, key: Any) -> Slot:
        slot = super()._add_slot(key)
        slot.append(_UNKNOWN)
        return slot

    def _read(self, key: Any, slot: Slot | None) -> Any:
        """The value of a slot that was not read yet, with its time; from the sealed overlay or the store."""
        if slot is None:
            slot = self._add_slot(key)
        if slot[FULL_KEY] in self._overlay.sealed:
            data = self._overlay.sealed[slot[FULL_KEY]]
        else:
            data = self._store.get(slot[FULL_KEY])
            self._store_reads += 1
        return self._fill(slot, data)

    def _load(self, keys: Iterable[K]) -> int:
        """Read the rows of different keys that are not in memory. Returns how many were read from the store."""
        unread = []
        for key in keys:
            slot = self._slots.get(key)
            if slot is None or slot[VALUE] is UNREAD:
                slot = slot or self._add_slot(key)
                if slot[FULL_KEY] in self._overlay.sealed:
                    self._fill(slot, self._overlay.sealed[slot[FULL_KEY]])
                else:
                    unread.append(slot)
        found = self._store.get_many([slot[FULL_KEY] for slot in unread]) if unread else []
        for slot, data in zip(unread, found, strict=True):
            self._fill(slot, data)
        return len(unread)

    def _fill(self, slot: Slot, data: bytes | None) -> Any:
        """Set what a slot keeps of a stored row."""
        if data is None:
            slot[INDEXED] = _NONE
            value: Any = ABSENT
        else:
            written_ms, slot[INDEXED] = stamps_of(data)
            over = written_ms <= self.closed_ms  # and stays so
            value = None if over else self._kept(row_value(data)), written_ms
        slot[VALUE] = value
        return value

    def _resolve(self, slots: list[Slot]) -> None:
        """Find the entries of rows that were written without being read. Called while nothing is sealed."""
        found = self._store.get_many([slot[FULL_KEY] for slot in slots]) if slots else []
        for slot, data in zip(slots, found, strict=True):
            slot[INDEXED] = _NONE if data is None else stamps_of(data)[1]

    def _finish(self, key: Any, due_ms: list[int]) -> None:
        """The entries of a row with these times were due, and are removed."""
        slot = self._slots[key]
        if slot[INDEXED] == _UNKNOWN:
            stored = self._overlay.sealed.get(slot[FULL_KEY], UNREAD)
            data = self._store.get(slot[FULL_KEY]) if stored is UNREAD else stored
            slot[INDEXED] = _NONE if data is None else stamps_of(data)[1]
        if slot[INDEXED] not in due_ms:
            return  # entries that are left over: the row has another one, or does not exist
        slot[INDEXED] = _NONE
        value = slot[VALUE]
        if value is not ABSENT and value[1] > self.closed_ms:
            if not slot[DIRTY]:
                # The same row, to be written with its new entry.
                encoded: Any = value[0] if self._fresh is not None else self._admit(value[0])[0]
                slot[DATA] = encoded
                self._overlay.written_bytes += len(encoded)
        else:
            slot[VALUE], slot[DATA] = ABSENT, None
            self._finished.append(key)
        if not slot[DIRTY]:
            slot[DIRTY] = True
            self._dirty.append(slot)
            self._by_steps += 1
