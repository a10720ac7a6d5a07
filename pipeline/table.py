"""A task's part of a table, as a handler sees it: a mapping over overlays over the applied state.

Reads fall through `view` (decoded values), the open overlay (written since the last seal), the sealed overlay
(being committed) and the store (applied). Invariant: `view[key]` is what the other three would give, so it can
be dropped or evicted at any moment; nothing is ever only there. Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, overload

from pipeline.declarations import TableDef

__all__ = ["MISSING", "ReadableStore", "Table", "TaskOverlay", "table_prefix"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

MISSING: Any = object()
_ABSENT: Any = object()


class ReadableStore(Protocol):
    """What a table reads applied values from."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class TaskOverlay:
    """What all tables of a task share: the sealed overlay, by full key, and the open record's undo log.

    `written_bytes`: encoded values written since the last seal, overwritten ones included.
    """

    __slots__ = ("sealed", "undo", "written_bytes")

    def __init__(self) -> None:
        self.written_bytes = 0
        self.sealed: Mapping[bytes, bytes | None] = {}
        self.undo: list[tuple[Table[Any, Any], Any, Any]] = []


def table_prefix(name: str) -> bytes:
    """The 4 bytes before each key of a table in store and journal: a hash of its name, never zero.

    Independent of the order of declaration, so that adding a table moves nothing.
    """
    prefix = blake2b(name.encode(), digest_size=4).digest()
    return prefix if prefix[0] else b"\x01" + prefix[1:]


class Table(Generic[K, V]):
    """The task's part of a table. Valid inside a handler only.

    A value that `get` returns never aliases the stored one: immutable values are shared, mutable ones decoded
    afresh, so a change counts only when it is assigned.
    """

    __slots__ = (
        "_admit",
        "_decode",
        "_encode_key",
        "_encoded",
        "_fresh",
        "_open",
        "_overlay",
        "_prefix",
        "_store",
        "_undo",
        "_view",
        "definition",
    )

    def __init__(self, definition: TableDef[K, V], store: ReadableStore, overlay: TaskOverlay) -> None:
        self.definition = definition
        self._prefix = table_prefix(definition.name)
        self._admit = definition.value.admit
        self._decode = definition.value.decode
        # Mutable values are kept encoded and decoded at each read.
        self._fresh: Callable[[Any], V] | None = None if definition.value.immutable else self._decode
        self._encode_key: Callable[[Any], bytes | None] = definition.key.encode
        self._store = store
        self._overlay = overlay
        self._undo = overlay.undo
        self._view: dict[Any, Any] = {}
        self._open: dict[Any, bytes | None] = {}
        self._encoded: dict[Any, bytes] = {}

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: V) -> V: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        value = self._view.get(key, MISSING)
        if value is MISSING:
            value = self._load(key)
        if value is _ABSENT:
            return default
        return value if self._fresh is None else self._fresh(value)

    def __getitem__(self, key: K) -> V:
        value = self._view.get(key, MISSING)
        if value is MISSING:
            value = self._load(key)
        if value is _ABSENT:
            raise KeyError(key)
        result: V = value if self._fresh is None else self._fresh(value)
        return result

    def __contains__(self, key: object) -> bool:
        value = self._view.get(key, MISSING)
        return (self._load(key) if value is MISSING else value) is not _ABSENT

    def __setitem__(self, key: K, value: V) -> None:
        data, decoded = self._admit(value)
        before = self._open.get(key, MISSING)
        if before is MISSING:
            self._encoded[key] = self._full_key(key)
        self._undo.append((self, key, before))
        self._overlay.written_bytes += len(data)  # type: ignore[arg-type]  # a table's codec has no tombstones
        self._open[key] = data
        self._view[key] = decoded if self._fresh is None else data

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        before = self._open.get(key, MISSING)
        if before is MISSING:
            self._encoded[key] = self._full_key(key)
        self._undo.append((self, key, before))
        self._open[key] = None
        self._view[key] = _ABSENT

    def update(self, values: Mapping[K, V]) -> None:
        """Set several values."""
        for key, value in values.items():
            self[key] = value

    def get_many(self, keys: Sequence[K]) -> dict[K, V]:
        """The values of those keys that have one; what is not in memory is read from disk in one call."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._view]
        full_keys = [self._full_key(key) for key in unknown]
        stored = [
            (key, full_key)
            for key, full_key in zip(unknown, full_keys, strict=True)
            if key not in self._open and full_key not in self._overlay.sealed
        ]
        found = self._store.get_many([full_key for _, full_key in stored])
        for (key, _), data in zip(stored, found, strict=True):
            self._remember(key, data)
        values = ((key, self.get(key, MISSING)) for key in dict.fromkeys(keys))
        return {key: value for key, value in values if value is not MISSING}

    def items(self, *, prefix: K | None = None) -> Iterator[tuple[K, V]]:
        """Keys and values of this task in the order of the keys' bytes, as of now.

        `prefix`: only keys that begin with it (str, bytes, or the first fields of a tuple).
        """
        start = self._prefix + (b"" if prefix is None else self.definition.key.prefix(prefix))
        changed = {k: v for k, v in self._overlay.sealed.items() if k.startswith(start)}
        for key, data in self._open.items():
            if self._encoded[key].startswith(start):
                changed[self._encoded[key]] = data
        skip = len(self._prefix)
        decode_key = self.definition.key.decode
        for full_key, data in _merge(self._store.scan(start), sorted(changed.items())):
            yield decode_key(full_key[skip:]), self._decode(data)

    def undo(self, key: Any, before: Any) -> None:
        """Take back one write of the open record: `before` is what the open overlay held."""
        if before is MISSING:
            del self._open[key]
            del self._encoded[key]
        else:
            self._open[key] = before
        self._view.pop(key, None)

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The open overlay by full key; a new one is open from here on."""
        encoded = self._encoded
        writes = {encoded[key]: data for key, data in self._open.items()}
        self._open = {}
        self._encoded = {}
        return writes

    @property
    def open_writes(self) -> int:
        """Number of keys in the open overlay."""
        return len(self._open)

    def trim(self, most: int) -> None:
        """Evict the oldest half of the view when it holds more than `most` values."""
        view = self._view
        if len(view) > most:
            for key in list(islice(view, len(view) - most // 2)):
                del view[key]

    def _full_key(self, key: Any) -> bytes:
        encoded = self._encode_key(key)
        if encoded is None:
            raise TypeError("a table's key cannot be None")
        return self._prefix + encoded

    def _load(self, key: Any) -> Any:
        data: Any = self._open.get(key, MISSING)
        if data is MISSING:
            full_key = self._full_key(key)
            data = self._overlay.sealed.get(full_key, MISSING)
            if data is MISSING:
                data = self._store.get(full_key)
        return self._remember(key, data)

    def _remember(self, key: Any, data: bytes | None) -> Any:
        value: Any
        if data is None:
            value = _ABSENT
        else:
            value = self._decode(data) if self._fresh is None else data
        self._view[key] = value
        return value


def _merge(
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
