"""What is due when, in one partition: `DueIndex`, with the entries of each source (`DueEntries`).

A source is a declaration whose rows become due one by one, in an order that is not that of their keys: timers, rows
with a time-to-live, sessions, sides of a join. Each of its rows has an entry, a row without a value:

    partition | 00 "tx" | prefix of the source, 4 bytes | due in ms, 8 bytes, big-endian | key of the row -> empty

So the due entries of a source are one range, in the order of (due, key), and no source scans the entries of another.
Entries are written like the rows of tables: they are in the undo log of the record, and then in the delta of the
commit. So they are restored, copied into checkpoints, moved and reset together with the rows. `DueSteps` clears the
undo log after the steps, so a source may also write between two steps.

An entry may be earlier than its row is due, never later. When it is due, its source reads the row, and moves the entry
if the row is due later. So a row that becomes due later, such as a session that is extended, needs no write here.

The first entries are in memory, as far as they are read: those below `_end`. What the store has above it is read in
chunks, each from the end of the one before. So a scan does not meet the tombstones of entries that are finished.
Processing thread only.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, nsmallest
from itertools import islice
from typing import Any

from pipeline.api.table import ReadableStore, TaskOverlay
from pipeline.core.event_time import NEVER_MS
from pipeline.errors import InvariantError

__all__ = [
    "DUE_BYTES",
    "FIRST_CHUNK",
    "PREFIX_BYTES",
    "DueEntries",
    "DueIndex",
    "index_key",
    "index_prefix",
    "split_index_key",
]

# Below the rows of tables, beside those of dedup tables (`core/dedup.py`) and the clock (`core/event_time.py`).
_INDEX = b"\x00tx"
PREFIX_BYTES = 4
DUE_BYTES = 8
FIRST_CHUNK = 16  # entries in the first read; each further one is twice as large
_LARGEST_CHUNK = 1024
_KEPT_CHUNKS = 4  # at most so many chunks of entries are in memory

_MISSING: Any = object()


def index_prefix(source: bytes, rows: bytes = b"") -> bytes:
    """The beginning of all entries of a source.

    `source`: `table_prefix` of its name. `rows`: `core.inputs.row_prefix` of the partition in format 2.
    """
    return rows + _INDEX + source


def index_key(source: bytes, due_ms: int, key: bytes, rows: bytes = b"") -> bytes:
    """The full key of an entry."""
    return index_prefix(source, rows) + due_ms.to_bytes(DUE_BYTES, "big") + key


def split_index_key(full_key: bytes, rows: bytes = b"") -> tuple[bytes, int, bytes] | None:
    """(source, due, key) of an entry; None for another row of the partition."""
    start = len(rows) + len(_INDEX)
    if not full_key.startswith(rows + _INDEX) or len(full_key) < start + PREFIX_BYTES + DUE_BYTES:
        return None
    due = start + PREFIX_BYTES
    return (
        full_key[start:due],
        int.from_bytes(full_key[due : due + DUE_BYTES], "big"),
        full_key[due + DUE_BYTES :],
    )


class DueEntries:
    """The entries of one source in one partition. Made by `DueIndex.entries`.

    Example:
        ```python
        for due_ms, key in entries.due(clock.ms):
            entries.remove(due_ms, key)     # in any case, before the next one is taken
            if (later_ms := due_of(key)) > due_ms:
                entries.add(later_ms, key)  # the row is due later
            else:
                yield Step(due_ms, key)
        ```
    """

    __slots__ = (
        "_added",
        "_chunk",
        "_end",
        "_live",
        "_near",
        "_overlay",
        "_prefix",
        "_sealed",
        "_skip",
        "_store",
        "_undo",
        "_waiting",
        "_written",
    )

    def __init__(
        self, store: ReadableStore, overlay: TaskOverlay, prefix: bytes, chunk: int = FIRST_CHUNK
    ) -> None:
        self._store = store
        self._overlay = overlay
        self._undo = overlay.undo
        self._prefix = prefix
        self._skip = len(prefix)
        self._written: dict[bytes, bytes | None] = {}  # since the last seal, by full key
        self._sealed: dict[bytes, bytes | None] = {}  # of the commit in progress
        self._near: list[bytes] = []  # a heap of full keys. Those that are not in `_live` are removed
        self._live: set[bytes] = set()  # all entries below `_end`, except those in `_waiting`
        self._end: bytes | None = prefix  # entries from here on are not in `_live`. None: all are
        self._waiting: set[bytes] = set()  # not due before the next seal
        self._chunk = chunk
        self._added = 0

    @property
    def next_ms(self) -> int:
        """The time of the first entry; `NEVER_MS` if there are none. Entries that wait for a commit do not count."""
        first = self._first()
        return NEVER_MS if first is None else self._due_of(first)

    @property
    def added(self) -> int:
        """About the number of entries that were added since the last seal."""
        return self._added

    def add(self, due_ms: int, key: bytes, *, waits: bool = False) -> None:
        """Add an entry. It is undone with the record.

        `waits`: it is not due before the next commit, so that a step that adds a due entry does not run forever.
        """
        full_key = self._prefix + due_ms.to_bytes(DUE_BYTES, "big") + key
        self._note(full_key)
        self._written[full_key] = b""
        self._added += 1
        self._overlay.written_bytes += len(full_key)
        if waits:
            self._live.discard(full_key)
            self._waiting.add(full_key)
        elif full_key not in self._waiting:
            self._admit(full_key)

    def remove(self, due_ms: int, key: bytes) -> None:
        """Remove an entry, if it exists. It is undone with the record."""
        full_key = self._prefix + due_ms.to_bytes(DUE_BYTES, "big") + key
        self._note(full_key)
        self._written[full_key] = None
        self._overlay.written_bytes += len(full_key)
        self._live.discard(full_key)
        self._waiting.discard(full_key)

    def due(self, until_ms: int) -> Iterator[tuple[int, bytes]]:
        """The entries up to this time, as (due, key) in this order.

        The caller removes each entry before it takes the next one. Entries that are added meanwhile, and do not wait,
        take part in the order. To end before the last one, close the iterator or forget it.
        """
        while True:
            first = self._first()
            if first is None:
                return
            due_ms = self._due_of(first)
            if due_ms > until_ms:
                return
            yield due_ms, first[self._skip + DUE_BYTES :]
            if first in self._live:
                raise InvariantError(f"the due entry {first!r} was not removed")

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key. Call it while no commit is in progress."""
        writes = self._sealed = self._written
        self._written, self._added = {}, 0
        waiting, self._waiting = self._waiting, set()
        for full_key in waiting:
            self._admit(full_key)
        return writes

    def restore(self, slot: Any, value: Any, data: Any, *, dirty: bool) -> None:
        """Undo the last write of an entry. `slot`: its full key.

        `value`: what was written before. `data`: whether it was live. `dirty`: whether it waited.
        """
        if value is _MISSING:
            del self._written[slot]
        else:
            self._written[slot] = value
        (self._waiting.add if dirty else self._waiting.discard)(slot)
        if data:
            self._admit(slot)
        else:
            self._live.discard(slot)

    def _note(self, full_key: bytes) -> None:
        """Write down in the undo log how an entry is now."""
        before = self._written.get(full_key, _MISSING)
        self._undo.append((self, full_key, before, full_key in self._live, full_key in self._waiting))

    def _admit(self, full_key: bytes) -> None:
        """Keep an existing entry in memory, if those around it are."""
        if (self._end is None or full_key < self._end) and full_key not in self._live:
            self._live.add(full_key)
            heappush(self._near, full_key)
            if len(self._near) > _KEPT_CHUNKS * self._chunk:
                self._trim()

    def _trim(self) -> None:
        """Forget the last entries in memory. They are in the store, or in what is written or sealed."""
        self._near = nsmallest(self._chunk + 1, self._live)
        if len(self._near) > self._chunk:
            self._end = self._near.pop()
        self._live = set(self._near)

    def _first(self) -> bytes | None:
        """The first entry that does not wait."""
        near, live = self._near, self._live
        while True:
            while near and near[0] not in live:
                heappop(near)
            if near:
                return near[0]
            if self._end is None:
                return None
            self._read()
            near, live = self._near, self._live

    def _read(self) -> None:
        """Read the next chunk. `_near` is empty."""
        start, chunk = self._end or self._prefix, self._chunk
        self._chunk = min(2 * chunk, _LARGEST_CHUNK)
        found = [full_key for full_key, _ in islice(self._store.scan(self._prefix, start), chunk + 1)]
        end = found.pop() if len(found) > chunk else None
        entries = set(found)
        for writes in (self._sealed if self._overlay.sealed else {}, self._written):
            for full_key, value in writes.items():
                if full_key >= start and (end is None or full_key < end):
                    (entries.discard if value is None else entries.add)(full_key)
        entries -= self._waiting
        self._end, self._live, self._near = end, entries, list(entries)
        heapify(self._near)
        if len(self._near) > _KEPT_CHUNKS * self._chunk:
            self._trim()

    def _due_of(self, full_key: bytes) -> int:
        return int.from_bytes(full_key[self._skip : self._skip + DUE_BYTES], "big")


class DueIndex:
    """The entries of all sources in one partition. `rows`: the beginning of the keys of its rows."""

    __slots__ = ("_chunk", "_entries", "_overlay", "_rows", "_store")

    def __init__(
        self, store: ReadableStore, overlay: TaskOverlay, rows: bytes = b"", chunk: int = FIRST_CHUNK
    ) -> None:
        """`chunk`: how many entries the first read takes."""
        self._chunk = chunk
        self._store = store
        self._overlay = overlay
        self._rows = rows
        self._entries: dict[bytes, DueEntries] = {}

    def entries(self, source: bytes) -> DueEntries:
        """The entries of a source, the same object in each call. `source`: `table_prefix` of its name."""
        known = self._entries.get(source)
        if known is None:
            known = DueEntries(self._store, self._overlay, index_prefix(source, self._rows), self._chunk)
            self._entries[source] = known
        return known

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key. Call it while no commit is in progress."""
        writes: dict[bytes, bytes | None] = {}
        for entries in self._entries.values():
            writes.update(entries.take_writes())
        return writes
