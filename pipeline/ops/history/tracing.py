"""Tables that note what a handler reads and writes: `TracedTable`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from pipeline.api.declarations import DeclaredTable
from pipeline.api.table import ReadableStore, RuntimeTable, TaskOverlay

__all__ = ["Access", "AccessKind", "Trace", "TracedTable"]

K = TypeVar("K")
V = TypeVar("V")
_ABSENT: Any = object()
_DATA = 1  # in a slot: the bytes to commit


class AccessKind(StrEnum):
    """What a handler did with a row."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Access:
    """One access to a row.

    `value`: what was read or written, as JSON has it. `exists`: whether there was a row.
    `full_key`: the key as state and journal have it. `data`: the bytes of a written value. `attempt`: the number of the
    attempt at the record, from 1.
    """

    kind: AccessKind
    table: str
    key: Any
    value: Any
    exists: bool
    full_key: bytes
    data: bytes | None
    handler: str
    attempt: int


@dataclass(slots=True)
class Trace:
    """The accesses so far. Nothing is noted while it is not `active`."""

    active: bool = False
    handler: str = ""
    attempt: int = 1
    accesses: list[Access] = field(default_factory=list)


class TracedTable(RuntimeTable[K, V]):
    """A task's part of a table that notes each access of a handler, with the value at that moment."""

    __slots__ = ("_trace",)

    def __init__(
        self,
        definition: DeclaredTable[K, V],
        store: ReadableStore,
        overlay: TaskOverlay,
        trace: Trace,
        rows: bytes = b"",
    ) -> None:
        super().__init__(definition, store, overlay, rows)
        self._trace = trace

    def get(self, key: K, default: Any = None) -> Any:
        value: Any = super().get(key, _ABSENT)
        self._note(AccessKind.READ, key, value)
        return default if value is _ABSENT else value

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        known: Any = key
        value: Any = super().get(known, _ABSENT) if found else _ABSENT
        self._note(AccessKind.READ, key, value)
        return found

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self._note(AccessKind.WRITE, key, value)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._note(AccessKind.DELETE, key, _ABSENT)

    def items(self, *, prefix: K | tuple[Any, ...] | None = None) -> Iterator[tuple[K, V]]:
        for key, value in super().items(prefix=prefix):
            self._note(AccessKind.READ, key, value)
            yield key, value

    def _note(self, kind: AccessKind, key: Any, value: Any) -> None:
        trace = self._trace
        if not trace.active:
            return
        exists = value is not _ABSENT
        trace.accesses.append(
            Access(
                kind,
                self._definition.name,
                _plain(key),
                _plain(value) if exists else None,
                exists,
                self._prefix + (self._encode_key(key) or b""),
                self._slots[key][_DATA] if kind is AccessKind.WRITE else None,
                trace.handler,
                trace.attempt,
            )
        )


def _plain(value: Any) -> Any:
    """The value as JSON has it; its repr if its type has no form in JSON. The handler may change the value later."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, msgspec.MsgspecError):
        return repr(value)
