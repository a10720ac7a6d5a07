"""What an app declares for histories: `History`, and `DeclaredHistory`, with the layout of its rows.

A history keeps the values of each key by event time, for `keep_s`. A row has those of a bucket of half of it:

    prefix of the name | end of the bucket in ms, 8 bytes, big-endian | key -> values (`core/histories.py`)

A bucket is removed as a whole when all its values are too old, like a tumbling window without a function. So no index
is needed, and a value is never written again to be removed. All times of a row are below its end, and that is all that
is assumed of it. So `keep_s` can be changed: rows with buckets of several lengths can exist side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from pipeline.api.codecs import ValueCodec, resolve_value
from pipeline.api.declarations import LONGEST_TTL_S, Declaration, DeclaredTable
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.api.windows import (
    END_BYTES,
    AlignedWindow,
    Tumbling,
    WindowOptions,
    WindowRows,
    pack_end,
    unpack_end,
)
from pipeline.core.event_time import ClockState
from pipeline.core.histories import HISTORY_SCHEMA, converted_values, values_in, values_since
from pipeline.core.records import iso_time
from pipeline.errors import ConfigError, InputError

__all__ = ["MOST_VALUES", "DeclaredHistory", "History", "HistoryKey"]

K = TypeVar("K")
V = TypeVar("V")

MOST_VALUES = 1_000
_LIMIT_VALUES = 1_000_000
_LEAST_S = 0.002  # a bucket is at least a millisecond


class History(Declaration, Generic[K, V]):
    """A history of a group: a declaration without rows. Made by `app.history(...)`; compared by identity.

    In a handler, `ctx.history(history)` gives the values of the task.
    """

    __slots__ = ()

    _kind = "History"


class HistoryKey(NamedTuple):
    """A key and a time: that of a value, or the end of a bucket."""

    key: Any
    time_ms: int

    def __str__(self) -> str:
        return f"{self.key}@{iso_time(self.time_ms)}"


class HistoryRows(WindowRows[K, V]):
    """The rows of one bucket."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """The history in messages."""
        return f"history {self.group}.{self.name}"


class DeclaredHistory(History[K, V], DeclaredTable[Any, Any]):
    """A history with its codecs.

    As a table, it has the keys `HistoryKey`, with the end of a bucket, and lists of (time in ms, value). `buckets`: the
    same rows as a window that never has a function. `most`: the values of a key in one bucket.
    """

    __slots__ = ("buckets", "keep_ms", "most", "values")

    def __init__(
        self,
        group: str,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        upgrade: Callable[[Any], V] | None,
        *,
        keep_s: object,
        max_values: object,
    ) -> None:
        where = f"history {group}.{name}"
        if type(keep_s) not in {int, float} or not _LEAST_S <= keep_s <= LONGEST_TTL_S:  # type: ignore[operator]
            raise ConfigError(
                f"{where}: keep_s is {keep_s!r}; it must be a number of seconds, {_LEAST_S} to {LONGEST_TTL_S:,}",
                hint="it is how long a value is kept, in event time: at least the longest range that you read",
            )
        if type(max_values) is not int or not 1 <= max_values <= _LIMIT_VALUES:
            raise ConfigError(
                f"{where}: max_values is {max_values!r}; it must be a whole number, 1 to {_LIMIT_VALUES:,}",
                hint="it limits the values of one key within half of keep_s",
            )
        self.keep_ms: int = round(keep_s * 1000)  # type: ignore[operator]
        self.most: int = max_values
        self.values: ValueCodec[V] = value
        size_s = -(-self.keep_ms // 2) / 1000
        plain = resolve_value(bytes, None, where, tombstones=False)
        options: WindowOptions[K, bytes] = WindowOptions(
            key, plain, (Any, bytes), self.keep_ms / 1000, b"", None, None
        )
        self.buckets: AlignedWindow[K, bytes] = AlignedWindow(group, name, Tumbling(size_s), options)
        self.buckets.rows = HistoryRows(group, name, key, plain)
        super().__init__(group, name, _bucket_key(key), _pairs_of(value), upgrade)

    @property
    def label(self) -> str:
        """The history in messages."""
        return f"history {self.group}.{self.name}"

    @property
    def is_table(self) -> bool:
        """`ctx.history` opens it."""
        return False

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys."""
        return self.buckets.rows.key

    @property
    def value_codec(self) -> ValueCodec[Any]:
        """The codec of one value."""
        return self.values

    @property
    def fades(self) -> bool:
        """Values are hidden as soon as they are too old, and removed with their bucket."""
        return True

    def visible(self, data: bytes, clock: ClockState) -> bytes | None:
        """The row without the values that are too old; None if none are left."""
        return values_since(data, self.closed_at(clock))

    def closed_at(self, clock: ClockState) -> int:
        """The mark at a stored state of the clock: values before this time are too old."""
        return max(clock.closed.get(self.name, 0), clock.clock_ms - self.keep_ms)

    def converted(self, data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
        """The row with other values at the same times."""
        return converted_values(data, convert)

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> Any:
        """(time in ms, value) of all values."""
        return [(time_ms, decode(value)) for time_ms, value in values_in(data)]

    def shown(self, key: bytes, data: bytes) -> Iterator[tuple[HistoryKey, Any]]:
        """Each value with its time, instead of its bucket."""
        for row_key, values in self.table_rows(key, data):
            for time_ms, value in values:
                yield HistoryKey(row_key.key, time_ms), value

    def parse_key(self, text: str) -> HistoryKey:
        """The row of `KEY@TIME` of a command line: the bucket that contains the time. Raises InputError."""
        key, time_ms = self.parse_place(text)
        (end_ms,) = self.buckets.ends_at(time_ms)
        return HistoryKey(key, end_ms)

    def parse_place(self, text: str) -> tuple[Any, int]:
        """Key and time of `KEY@TIME`, as `HistoryKey` is shown. Raises InputError."""
        key, _, when = text.rpartition("@")
        try:
            moment = datetime.fromisoformat(when)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InputError(
                f"{text!r} is not a row of {self.label}",
                hint="write KEY@TIME, as in ann@2026-01-31T00:00:00Z",
            )
        return parse_key(self.buckets.rows.key, key), round(moment.timestamp() * 1000)


def _bucket_key(key: KeyCodec[Any]) -> KeyCodec[HistoryKey]:
    def encode(row: HistoryKey) -> bytes:
        return pack_end(row.time_ms) + (key.encode(row.key) or b"")

    def decode(data: bytes | None) -> HistoryKey:
        if data is None or len(data) < END_BYTES:
            raise TypeError("the key of a history begins with 8 bytes")
        return HistoryKey(key.decode(data[END_BYTES:]), unpack_end(data))

    def prefix(row: object) -> bytes:
        raise TypeError(f"the keys of histories have no prefixes: {row!r}")

    return KeyCodec(encode, decode, prefix, False, f"{HISTORY_SCHEMA}{key.schema}")


def _pairs_of(value: ValueCodec[V]) -> ValueCodec[Any]:
    """The codec of a whole row, for reading only."""

    def decode(data: bytes | None) -> list[tuple[int, V]]:
        if data is None:
            raise TypeError("a null value where a history has a row")
        return [(time_ms, value.decode(each)) for time_ms, each in values_in(data)]

    def refuse(row: object) -> NoReturn:
        raise TypeError(f"the rows of a history are written by `add`: {row!r}")

    return ValueCodec(refuse, refuse, decode, False, False, value.schema)
