"""Compares the rows of two states of a task: `different_rows`, and names what differs.

Both states are scanned in the order of their keys, so the comparison needs no memory for them. A key begins with the
prefix of its table; the prefix of the ids that drop duplicates begins with a zero byte. The states may have different
formats: a row is compared by its partition and its key of format 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.api.table import table_prefix
from pipeline.core.entry_body import Format, split_row

__all__ = ["Row", "RowDifference", "RowKey", "different_rows", "readable", "rows_of", "table_of"]

_PREFIX_BYTES = 4
_SHOWN_BYTES = 120


class RowKey(NamedTuple):
    """Where a row is: its partition, and its key of format 1."""

    partition: int
    key: bytes


Row = tuple[RowKey, bytes]


class RowDifference(NamedTuple):
    """A row that two states do not share. `live`, `replayed`: the value; None if the state has no such row."""

    place: RowKey
    live: bytes | None
    replayed: bytes | None

    def describe(self, tables: Iterable[str], *, several: bool = False) -> str:
        """Table, key and both values, in words. `several`: name the partition, because the task has several."""
        full_key = self.place.key
        table, key = table_of(full_key, tables), readable(full_key[_PREFIX_BYTES:])
        live, replayed = (
            "no row" if value is None else readable(value) for value in (self.live, self.replayed)
        )
        where = f", partition {self.place.partition}" if several else ""
        return f"table {table}{where}, key {key}: live {live}, replayed {replayed}"


def rows_of(scanned: Iterable[tuple[bytes, bytes]], version: Format, number: int) -> Iterator[Row]:
    """The rows of a state of task `number`, in the order of their places. `scanned`: in the order of their keys."""
    return ((RowKey(*split_row(key, version, number)), value) for key, value in scanned)


def different_rows(live: Iterable[Row], replayed: Iterable[Row]) -> Iterator[RowDifference]:
    """The rows that differ, in the order of their places. Both states yield their rows in this order."""
    ours, theirs = iter(live), iter(replayed)
    mine, other = next(ours, None), next(theirs, None)
    while mine is not None or other is not None:
        if mine == other:
            mine, other = next(ours, None), next(theirs, None)
        elif other is None or (mine is not None and mine[0] < other[0]):
            assert mine is not None  # noqa: S101 - one of the two is left
            yield RowDifference(mine[0], mine[1], None)
            mine = next(ours, None)
        elif mine is None or other[0] < mine[0]:
            yield RowDifference(other[0], None, other[1])
            other = next(theirs, None)
        else:
            yield RowDifference(mine[0], mine[1], other[1])
            mine, other = next(ours, None), next(theirs, None)


def table_of(key: bytes, tables: Iterable[str]) -> str:
    """The name of the table that a full key belongs to."""
    prefix = key[:_PREFIX_BYTES]
    if prefix[:1] == b"\0":
        return "of ids that drop duplicates"
    return next((name for name in tables if table_prefix(name) == prefix), f"with the prefix {prefix.hex()}")


def readable(data: bytes | None) -> str:
    """Bytes as text, if they are text. A null of Kafka is `null value`, because `null` is the text of a JSON null."""
    if data is None:
        return "null value"
    cut = data[:_SHOWN_BYTES]
    more = "..." if len(data) > len(cut) else ""
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        return repr(cut) + more
    return (text if text.isprintable() and text else repr(text)) + more
