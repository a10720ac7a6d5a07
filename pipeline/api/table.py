"""A task's part of a table, as a handler sees it: a mapping over overlays over the applied state.

Each key in memory has one slot, which holds its decoded value and, while it is dirty, the bytes to commit.
Reads that find no slot fall through the sealed overlay (being committed) to the store (applied). Invariant: a
clean slot holds what sealed overlay and store would give, so it can be dropped at any moment; a dirty one
stays until it is sealed. Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from pipeline.api.declarations import DeclaredTable
from pipeline.api.encode_errors import REFUSALS, refuse_key, refuse_value
from pipeline.api.footprint import footprint

__all__ = [
    "ABSENT",
    "DATA",
    "DIRTY",
    "FULL_KEY",
    "UNREAD",
    "VALUE",
    "ReadableStore",
    "RuntimeTable",
    "Slot",
    "TaskOverlay",
    "TaskTable",
    "merge_rows",
    "table_prefix",
]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_MISSING: Any = object()
ABSENT: Any = object()  # the key is known to have no value
UNREAD: Any = object()  # nothing is known of the key yet

# A slot is a list, the cheapest mutable thing: [value, bytes to commit, full key, dirty].
VALUE, DATA, FULL_KEY, DIRTY = 0, 1, 2, 3
Slot = list[Any]

# The memory of a value without its objects: the slot, and its share of the dictionary, which is half full on average.
_SLOT_BYTES = getsizeof([None] * 4) + 80
# What is measured of a table at the end of each commit, and what its mean is computed from.
_SAMPLED = 2
_REMEMBERED_SAMPLES = 4096


class ReadableStore(Protocol):
    """What a table reads applied values from."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class TaskOverlay:
    """What all tables of a task share: the sealed overlay, by full key, and the open record's undo log.

    The undo log holds (table, slot, value, bytes, dirty) as they were before each write. `written_bytes`:
    encoded values written since the last seal, overwritten ones included.
    """

    __slots__ = ("sealed", "undo", "written_bytes")

    def __init__(self) -> None:
        self.written_bytes = 0
        self.sealed: Mapping[bytes, bytes | None] = {}
        self.undo: list[
            tuple[Any, Any, Any, Any, bool]
        ] = []  # with RuntimeTables and DueEntries, which TaskTable does not know

    def take_back(self) -> None:
        """Undo every write of the current record, the last one first."""
        while self.undo:
            table, slot, value, data, dirty = self.undo.pop()
            table.restore(slot, value, data, dirty=dirty)


def table_prefix(name: str) -> bytes:
    """The 4 bytes before each key of a table in store and journal: a hash of its name, never zero.

    Independent of the order of declaration, so that adding a table moves nothing.
    """
    prefix = blake2b(name.encode(), digest_size=4).digest()
    return prefix if prefix[0] else b"\x01" + prefix[1:]


class TaskTable(Generic[K, V]):
    """The task's part of a table, as a mapping. `ctx.table(table)` gives it; valid inside a handler only.

    Its writes are committed together with the record's outputs and positions. A value that was read is never the
    stored object: a change of it counts only when it is assigned again.

    Example:
        ```python
        table = ctx.table(totals)
        if event.key in table:
            table[event.key] += 1
        else:
            table[event.key] = 1
        ```
    """

    __slots__ = (
        "_admit",
        "_decode",
        "_definition",
        "_dirty",
        "_encode_key",
        "_fresh",
        "_overlay",
        "_prefix",
        "_sampled",
        "_sampled_bytes",
        "_slots",
        "_store",
        "_store_reads",
        "_undo",
    )

    if TYPE_CHECKING:  # set by RuntimeTable
        _admit: Callable[[V], tuple[bytes | None, V]]
        _decode: Callable[[bytes | None], V]
        _definition: DeclaredTable[K, V]
        _dirty: list[Slot]
        _encode_key: Callable[[Any], bytes | None]
        _fresh: Callable[[Any], V] | None
        _overlay: TaskOverlay
        _prefix: bytes
        _sampled: int
        _sampled_bytes: int
        _slots: dict[Any, Slot]
        _store: ReadableStore
        _store_reads: int
        _undo: list[tuple[Any, Any, Any, Any, bool]]

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: V) -> V: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key.

        Args:
            key: Of the table's key type.
            default: What to return for a key that has no value.

        Returns:
            The value, or `default`.

        Raises:
            TypeError: The key has a wrong type.
            ValueError: The key cannot be encoded.

        Example:
            ```python
            count = table.get(event.key, 0)
            ```
        """
        slot = self._slots.get(key)
        value = self._read(key, slot) if slot is None or slot[VALUE] is UNREAD else slot[VALUE]
        if value is ABSENT:
            return default
        return value if self._fresh is None else self._fresh(value)

    def __getitem__(self, key: K) -> V:
        """The value of a key. Raises KeyError for a key that has none, and otherwise as `get`."""
        value: Any = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        result: V = value
        return result

    def __contains__(self, key: object) -> bool:
        """Whether a key has a value. Raises as `get`."""
        slot = self._slots.get(key)
        value = self._read(key, slot) if slot is None or slot[VALUE] is UNREAD else slot[VALUE]
        return value is not ABSENT

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value of a key.

        Raises TypeError, ValueError or OverflowError for a key or a value that the table's types do not allow.
        """
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
        slot[VALUE] = decoded if self._fresh is None else data
        slot[DATA] = data
        if not dirty:
            slot[DIRTY] = True
            self._dirty.append(slot)

    def __delitem__(self, key: K) -> None:
        """Delete the value of a key. Raises KeyError for a key that has none, and otherwise as `get`."""
        if key not in self:
            raise KeyError(key)
        slot = self._slots[key]
        dirty = slot[DIRTY]
        self._undo.append((self, slot, slot[VALUE], slot[DATA], dirty))
        slot[VALUE] = ABSENT
        slot[DATA] = None
        if not dirty:
            slot[DIRTY] = True
            self._dirty.append(slot)

    @overload
    def pop(self, key: K) -> V: ...

    @overload
    def pop(self, key: K, default: V) -> V: ...

    @overload
    def pop(self, key: K, default: D) -> V | D: ...

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Delete the value of a key, and return it.

        Args:
            key: Of the table's key type.
            default: What to return for a key that has no value.

        Returns:
            The value that was deleted, or `default`.

        Raises:
            KeyError: The key has no value, and there is no `default`.
            TypeError: The key has a wrong type.
            ValueError: The key cannot be encoded.

        Example:
            ```python
            order = table.pop(event.key, None)
            ```
        """
        value = self.get(key, _MISSING)
        if value is not _MISSING:
            del self[key]
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def update(self, values: Mapping[K, V]) -> None:
        """Set several values.

        Args:
            values: Values by key.

        Raises:
            TypeError: A key or a value has a wrong type.
            ValueError: A key or a value cannot be encoded.
            OverflowError: A number is too large for its encoding.

        Example:
            ```python
            table.update({"AA": 1, "UA": 2})
            ```
        """
        for key, value in values.items():
            self[key] = value

    def get_many(self, keys: Sequence[K]) -> dict[K, V]:
        """The values of several keys. Those that are not in memory are read from disk in one call.

        Args:
            keys: Keys, in any order; duplicates are allowed.

        Returns:
            The values by key, without the keys that have none.

        Raises:
            TypeError: A key has a wrong type.
            ValueError: A key cannot be encoded.

        Example:
            ```python
            known = ctx.table(customers).get_many(batch.keys)
            ```
        """
        different = dict.fromkeys(keys)
        self._load(different)
        values = ((key, self.get(key, _MISSING)) for key in different)
        return {key: value for key, value in values if value is not _MISSING}

    def items(self, *, prefix: K | tuple[Any, ...] | None = None) -> Iterator[tuple[K, V]]:
        """Keys and values of this task, in the order of the keys' bytes.

        The rows are those at the time of the call; later writes do not change them.

        Args:
            prefix: Only keys that begin with it: a str, bytes, or a tuple of the first fields.

        Returns:
            An iterator over (key, value), valid inside the handler.

        Raises:
            TypeError: The prefix has a wrong type.
            ValueError: The prefix cannot be encoded, or the table's keys have no prefixes.

        Example:
            ```python
            for (origin, carrier), delay in ctx.table(by_route).items(prefix=("JFK",)):
                ...
            ```
        """
        start = self._prefix + (b"" if prefix is None else self._definition.key.prefix(prefix))
        changed = {k: v for k, v in self._overlay.sealed.items() if k.startswith(start)}
        for slot in self._dirty:
            if slot[FULL_KEY].startswith(start):
                changed[slot[FULL_KEY]] = slot[DATA]
        return self._decoded(merge_rows(self._store.scan(start), sorted(changed.items())))

    def _load(self, keys: Iterable[K]) -> int:
        """Read the rows of different keys that are not in memory. Returns how many were read from the store."""
        unread = []
        for key in keys:
            slot = self._slots.get(key)
            if slot is None or slot[VALUE] is UNREAD:
                slot = slot or self._add_slot(key)
                if slot[FULL_KEY] in self._overlay.sealed:
                    self._read(key, slot)
                else:
                    unread.append(slot)
        found = self._store.get_many([slot[FULL_KEY] for slot in unread]) if unread else []
        for slot, data in zip(unread, found, strict=True):
            slot[VALUE] = self._kept(data)
        return len(unread)

    def _add_slot(self, key: Any) -> Slot:
        try:
            encoded = self._encode_key(key)
        except REFUSALS as error:
            refuse_key(error, self._definition.label, self._definition.key, key)
        if encoded is None:
            raise TypeError("a table's key cannot be None")
        slot = [UNREAD, None, self._prefix + encoded, False]
        self._slots[key] = slot
        return slot

    def _read(self, key: Any, slot: Slot | None) -> Any:
        """The value of a slot that was not read yet, from the sealed overlay or the store."""
        if slot is None:
            slot = self._add_slot(key)
        data: Any = self._overlay.sealed.get(slot[FULL_KEY], _MISSING)
        if data is _MISSING:
            data = self._store.get(slot[FULL_KEY])
            self._store_reads += 1
        value = slot[VALUE] = self._kept(data)
        return value

    def _kept(self, data: bytes | None) -> Any:
        """What a slot keeps of stored bytes."""
        if data is None:
            return ABSENT
        return self._decode(data) if self._fresh is None else data

    def _decoded(self, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[K, V]]:
        skip = len(self._prefix)
        decode_key = self._definition.key.decode
        for full_key, data in pairs:
            yield decode_key(full_key[skip:]), self._decode(data)


class RuntimeTable(TaskTable[K, V]):
    """A task's part of a table, with what the runtime needs of it."""

    __slots__ = ()

    def __init__(
        self, definition: DeclaredTable[K, V], store: ReadableStore, overlay: TaskOverlay, rows: bytes = b""
    ) -> None:
        """`rows`: the beginning of the keys of a partition's rows (`core.inputs.row_prefix`)."""
        self._definition = definition
        self._prefix = rows + table_prefix(definition.name)
        self._admit = definition.value.admit
        self._decode = definition.value.decode
        # The value of a mutable type is kept as bytes and decoded at each read.
        self._fresh = None if definition.value.immutable else self._decode
        self._encode_key = definition.key.encode
        self._store = store
        self._overlay = overlay
        self._undo = overlay.undo
        self._slots = {}
        self._dirty = []
        self._sampled = 0
        self._sampled_bytes = 0
        self._store_reads = 0

    @property
    def definition(self) -> DeclaredTable[K, V]:
        """The table."""
        return self._definition

    @property
    def store_reads(self) -> int:
        """How many single rows were read from the store."""
        return self._store_reads

    def load(self, keys: Iterable[K]) -> int:
        """Read the rows of different keys in one call, so that reads find them in memory. Returns their number."""
        return self._load(keys)

    def admit(self, key: K, value: V | None) -> tuple[bytes | None, V | None]:
        """Check and encode a key and a value, for `put`. None deletes the row. Raises as `__setitem__`."""
        if key not in self._slots:
            self._add_slot(key)
        if value is None:
            return None, None
        try:
            return self._admit(value)
        except REFUSALS as error:
            refuse_value(error, f"table {self._definition.group}.{self._definition.name}")

    def admitted(self, data: bytes, decoded: V) -> V:
        """A value that `admit` returned, as a handler may have it."""
        return decoded if self._fresh is None else self._fresh(data)

    def put(self, key: K, data: bytes | None, decoded: V | None) -> None:
        """Set what `admit` returned; None as `data` deletes the row. It is not in the undo log."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._add_slot(key)
        if data is None:
            slot[VALUE] = ABSENT
        else:
            self._overlay.written_bytes += len(data)
            slot[VALUE] = decoded if self._fresh is None else data
        slot[DATA] = data
        if not slot[DIRTY]:
            slot[DIRTY] = True
            self._dirty.append(slot)

    def restore(self, slot: Slot, value: Any, data: Any, *, dirty: bool) -> None:
        """Take back the last write: the slot as it was."""
        slot[VALUE] = value
        slot[DATA] = data
        if not dirty:
            slot[DIRTY] = False
            self._dirty.pop()  # writes are taken back in reverse, so this slot is the last

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key; their slots are clean from here on."""
        writes = {}
        for slot in self._dirty:
            writes[slot[FULL_KEY]] = slot[DATA]
            slot[DATA] = None
            slot[DIRTY] = False
        self._dirty = []
        return writes

    def measure(self) -> int:
        """About the bytes that the values in memory take. Measures those that were read or written last."""
        for key, slot in islice(reversed(self._slots.items()), _SAMPLED):
            self._sample(footprint(key) + footprint(slot[VALUE]) + getsizeof(slot[FULL_KEY]))
        for slot in self._dirty[-_SAMPLED:]:
            self._sample(footprint(slot[VALUE]) + 2 * getsizeof(slot[FULL_KEY]))
        return len(self._slots) * self._slot_bytes

    def trim(self, most_bytes: int) -> None:
        """Drop the oldest clean slots, until about `most_bytes` are taken."""
        slots = self._slots
        excess = len(slots) - most_bytes // self._slot_bytes
        if excess > 0:
            oldest = islice(slots.items(), excess)
            for key in [key for key, slot in oldest if not slot[DIRTY]]:
                del slots[key]

    @property
    def _slot_bytes(self) -> int:
        return _SLOT_BYTES + (self._sampled_bytes // self._sampled if self._sampled else 0)

    def _sample(self, size: int) -> None:
        self._sampled += 1
        self._sampled_bytes += size
        if self._sampled > _REMEMBERED_SAMPLES:
            self._sampled //= 2
            self._sampled_bytes //= 2


def merge_rows(
    stored: Iterator[tuple[bytes, bytes]], changed: list[tuple[bytes, bytes | None]]
) -> Iterator[tuple[bytes, bytes]]:
    """Stored pairs overlaid with changes; both in key order."""
    position = 0
    for key, data in stored:
        while position < len(changed) and changed[position][0] < key:
            yield from _present(changed[position])
            position += 1
        if position < len(changed) and changed[position][0] == key:
            yield from _present(changed[position])
            position += 1
        else:
            yield key, data
    for pair in changed[position:]:
        yield from _present(pair)


def _present(pair: tuple[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    key, data = pair
    if data is not None:
        yield key, data
