"""The row of a history: the values of one key in one bucket of event time, in order of their times. Pure.

    count u32 | item | item | ...        item = length u32 | time in ms u64 | value | length u32

`length` is that of the value. It is on both sides, so a value that is newer than the others is appended, one that is
slightly out of order is inserted from the end, and the oldest one is removed, without reading the others. Values of one
time are in the order in which they were added.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipeline.errors import CorruptStateError

__all__ = [
    "HISTORY_SCHEMA",
    "Added",
    "add_value",
    "converted_values",
    "count_of",
    "values_in",
    "values_since",
]

HISTORY_SCHEMA = "history "  # the fingerprints of histories begin with it, those of other tables do not

_COUNT = struct.Struct(">I")
_HEAD = struct.Struct(">IQ")
_LENGTH = struct.Struct(">I")
_COUNT_BYTES = _COUNT.size
_ITEM_BYTES = _HEAD.size + _LENGTH.size


class Added(NamedTuple):
    """The row with a value more, and how many of the oldest values were removed for it."""

    data: bytes
    removed: int


def add_value(data: bytes | None, time_ms: int, value: bytes, most: int) -> Added:
    """Add a value to a row. Of more than `most` values, the oldest are removed. Raises CorruptStateError."""
    length = len(value)
    item = _HEAD.pack(length, time_ms) + value + _LENGTH.pack(length)
    if data is None:
        return Added(_COUNT.pack(1) + item, 0)
    count = count_of(data)
    at = end = len(data)
    while at > _COUNT_BYTES:
        start = at - _ITEM_BYTES - _LENGTH.unpack_from(data, at - _LENGTH.size)[0]
        if start < _COUNT_BYTES:
            raise _corrupt(data)
        if _HEAD.unpack_from(data, start)[1] <= time_ms:
            break
        at = start
    items = data[_COUNT_BYTES:] + item if at == end else data[_COUNT_BYTES:at] + item + data[at:]
    removed = max(0, count + 1 - most)
    first = 0
    for _ in range(removed):
        first += _ITEM_BYTES + _LENGTH.unpack_from(items, first)[0]
    return Added(_COUNT.pack(count + 1 - removed) + items[first:], removed)


def count_of(data: bytes) -> int:
    """The number of values in a row. Raises CorruptStateError."""
    if len(data) < _COUNT_BYTES:
        raise _corrupt(data)
    count: int = _COUNT.unpack_from(data)[0]
    return count


def values_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(time in ms, value) of a row, in order. Raises CorruptStateError."""
    left, at, end = count_of(data), _COUNT_BYTES, len(data)
    while at < end:
        if end - at < _ITEM_BYTES:
            raise _corrupt(data)
        length, time_ms = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        at = start + length + _LENGTH.size
        if at > end:
            raise _corrupt(data)
        yield time_ms, data[start : start + length]
        left -= 1
    if left:
        raise _corrupt(data)


def values_since(data: bytes, oldest_ms: int) -> bytes | None:
    """The row without the values before a time; None if none are left. Raises CorruptStateError."""
    kept = [(time_ms, value) for time_ms, value in values_in(data) if time_ms >= oldest_ms]
    return _packed(kept) if kept else None


def converted_values(data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
    """The row with other values at the same times."""
    return _packed([(time_ms, convert(value)) for time_ms, value in values_in(data)])


def _packed(items: Sequence[tuple[int, bytes]]) -> bytes:
    return _COUNT.pack(len(items)) + b"".join(
        [_HEAD.pack(len(value), time_ms) + value + _LENGTH.pack(len(value)) for time_ms, value in items]
    )


def _corrupt(data: bytes) -> CorruptStateError:
    return CorruptStateError(f"the row of a history cannot be decoded: {data[:40]!r}, {len(data):,} bytes")
