"""The rows that the records of a changelog of Faust make: `rows_of` a table.

| table | key of a record | value of a record | effect |
| --- | --- | --- | --- |
| Table | the key | the value | the row is set |
| Table | the key | null | the row is deleted |
| windowed Table | the key and the window: `[key, [start, end]]` | the value, or null | the same |
| SetTable | an operation and the key: `[1, key]` | an element | it is added |
| SetTable | `[2, key]` | an element | it is removed |
| SetTable | `[15, key]` | `[added, removed]` | elements are added, then removed |

Keys and values are decoded once, so that a row that an agent could not read is found before the application moves. A
key is encoded again, because a lookup compares its bytes: another JSON library may write a key with other bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

__all__ = ["RowsOfChangelog", "rows_of"]

_ADD, _DISCARD, _UPDATE = 0x1, 0x2, 0xF


class RowsOfChangelog(Protocol):
    """The rows of one partition of a table."""

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Apply the next record. Raises any error for a record that is not one of a changelog."""
        ...

    def rows(self) -> Mapping[bytes, bytes]:
        """The rows after all records, by key."""
        ...


def rows_of(table: Any) -> RowsOfChangelog:
    """The rows of a table of Faust, as the engine declares it."""
    return _SetRows(table) if hasattr(table, "encode_set") else _PlainRows(table)


def _given(key: bytes | None) -> bytes:
    if key is None:
        raise ValueError("the record has no key")
    return key


class _PlainRows:
    def __init__(self, table: Any) -> None:
        self._table = table
        self._rows: dict[bytes, bytes] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        table = self._table
        stored = table.encode_key(table.decode_key(_given(key)))
        if value is None:
            self._rows.pop(stored, None)
        else:
            table.decode_value(value)
            self._rows[stored] = value

    def rows(self) -> Mapping[bytes, bytes]:
        return self._rows


class _SetRows:
    def __init__(self, table: Any) -> None:
        self._table = table
        self._json = import_module("faust.utils.json")  # the library that Faust uses in this environment
        self._sets: dict[bytes, set[Any]] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        table = self._table
        operation, set_key = self._json.loads(_given(key))
        stored = table.encode_key(table.decode_key(self._dumped(set_key)))
        elements = self._sets.setdefault(stored, set())
        if value is None:
            raise ValueError("an operation has no value")
        if operation == _UPDATE:
            added, removed = self._json.loads(value)
            elements |= self._elements(added)
            elements -= self._elements(removed)
        elif operation == _ADD:
            elements |= table.decode_value(b"[" + value + b"]")
        elif operation == _DISCARD:
            elements -= table.decode_value(b"[" + value + b"]")
        else:
            raise ValueError(f"operation {operation} is unknown")

    def _elements(self, elements: list[Any]) -> set[Any]:
        found: set[Any] = self._table.decode_value(self._dumped(elements))
        return found

    def _dumped(self, value: Any) -> bytes:
        data: bytes | str = self._json.dumps(value)
        return data if isinstance(data, bytes) else data.encode()

    def rows(self) -> Mapping[bytes, bytes]:
        return {key: self._table.encode_set(elements) for key, elements in self._sets.items()}
