"""What an app declares for windows: `Window`, with the sizes `Tumbling`, `Hopping` and `Sessions`.

`DeclaredWindow` is what they have in common. A window of a fixed size, an `AlignedWindow`, is stored as rows of a table
whose keys begin with the end of the window. So the rows that are due first come first, without an index:

    prefix of the name | end in ms, 8 bytes, big-endian | key -> value

A `SessionWindow` has one row for each key, with all of its open sessions (`core/sessions.py`), and an index
(`indexed_rows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from pipeline.api.closed_windows import closed_type
from pipeline.api.codecs import ValueCodec
from pipeline.api.declarations import LONGEST_TTL_S, Declaration, DeclaredTable, DeclaredTopic, StepTopic
from pipeline.api.encode_errors import REFUSALS
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.core.event_time import WINDOW_SCHEMA, ClockState
from pipeline.core.records import iso_time
from pipeline.core.sessions import pack_sessions, unpack_sessions
from pipeline.errors import ConfigError, InputError

__all__ = [
    "END_BYTES",
    "MAX_HOPS",
    "AlignedWindow",
    "DeclaredWindow",
    "Hopping",
    "SessionValue",
    "SessionWindow",
    "Sessions",
    "Tumbling",
    "Window",
    "WindowKey",
    "WindowOptions",
    "WindowRows",
    "close_topic_name",
    "declared_window",
    "pack_end",
    "unpack_end",
]

K = TypeVar("K")
V = TypeVar("V")

END_BYTES = 8
MAX_HOPS = 60
_LONGEST_S = LONGEST_TTL_S


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Consecutive windows: each event is in one. They are aligned to the epoch, in UTC.

    Args:
        size_s: The length in seconds, from 0.001 to ten years.

    Raises:
        ConfigError: The length cannot be used.

    Example:
        ```python
        hourly = app.window("hourly", key=str, value=int, size=Tumbling(3600), grace_s=60, default=0)
        ```
    """

    size_s: float

    def __post_init__(self) -> None:
        _checked_seconds("Tumbling: size_s", self.size_s)

    @property
    def size_ms(self) -> int:
        """The length in milliseconds."""
        return round(self.size_s * 1000)

    @property
    def every_ms(self) -> int:
        """The time from the start of a window to that of the next one, in milliseconds."""
        return self.size_ms


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows that overlap: a new one begins every `every_s`. They are aligned to the epoch, in UTC.

    Args:
        size_s: The length in seconds, from 0.001 to ten years.
        every_s: The time from the start of a window to that of the next one, in seconds, at most `size_s`. An event is
            in `size_s / every_s` windows, at most 60.

    Raises:
        ConfigError: A length cannot be used, or an event would be in more than 60 windows.

    Example:
        ```python
        last_hour = app.window(
            "last-hour", key=str, value=int, size=Hopping(3600, every_s=300), grace_s=60, default=0
        )
        ```
    """

    size_s: float
    every_s: float

    def __post_init__(self) -> None:
        _checked_seconds("Hopping: size_s", self.size_s)
        _checked_seconds("Hopping: every_s", self.every_s)
        if self.every_ms > self.size_ms:
            raise ConfigError(
                f"Hopping: every_s is {self.every_s}, more than size_s {self.size_s}: some events would be in no window"
            )
        hops = ceil(self.size_ms / self.every_ms)
        if hops > MAX_HOPS:
            raise ConfigError(
                f"Hopping: each event would be in {hops} windows; at most {MAX_HOPS} are possible",
                hint=f"choose every_s of {self.size_s / MAX_HOPS:g} or more",
            )

    @property
    def size_ms(self) -> int:
        """The length in milliseconds."""
        return round(self.size_s * 1000)

    @property
    def every_ms(self) -> int:
        """The time from the start of a window to that of the next one, in milliseconds."""
        return round(self.every_s * 1000)


@dataclass(frozen=True, slots=True)
class Sessions(Generic[V]):
    """Windows that follow the activity of a key: a session ends when its key has no event for `gap_s`.

    A session lasts from its first event to a millisecond after its last one. An event that is at most `gap_s` away from
    two sessions merges them.

    Args:
        gap_s: The longest time between two events of a session, in seconds, from 0.001 to ten years.
        merge: Combines the values of two sessions that are merged: `merge(earlier, later)`. If it raises, the record
            that merges them has failed.

    Raises:
        ConfigError: An argument cannot be used.

    Example:
        ```python
        visits = app.window(
            "visits", key=str, value=int, size=Sessions(1800, merge=int.__add__), grace_s=60, default=0
        )
        ```
    """

    gap_s: float
    merge: Callable[[V, V], V]

    def __post_init__(self) -> None:
        _checked_seconds("Sessions: gap_s", self.gap_s)
        if not callable(self.merge):
            raise ConfigError(
                f"Sessions: merge is {self.merge!r}; it must be a function of the values of two sessions",
                hint="such as merge=lambda earlier, later: earlier + later",
            )

    @property
    def gap_ms(self) -> int:
        """The gap in milliseconds."""
        return round(self.gap_s * 1000)


class Window(Declaration, Generic[K, V]):
    """A window of a group: a declaration without rows. Made by `app.window(...)`; compared by identity.

    In a handler, `ctx.window(window)` gives the rows of the task.
    """

    __slots__ = ()

    _kind = "Window"


class WindowKey(NamedTuple):
    """The key of a row: a key, and the window."""

    key: Any
    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        return f"{self.key}@{iso_time(self.start_ms)}"


class WindowRows(DeclaredTable[K, V]):
    """The rows that end at one time, as a table: their keys are those of the window."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """The window in messages."""
        return f"window {self.group}.{self.name}"


@dataclass(frozen=True, slots=True)
class WindowOptions(Generic[K, V]):
    """The arguments of `app.window` that do not depend on the size. `types`: the declared types of key and value."""

    key: KeyCodec[K]
    value: ValueCodec[V]
    types: tuple[Any, Any]
    grace_s: object
    default: V
    late_to: object
    upgrade: Callable[[Any], V] | None

    def check(self, where: str) -> None:
        """Raise ConfigError if one cannot be used."""
        if type(self.grace_s) not in {int, float} or not 0 <= self.grace_s <= _LONGEST_S:  # type: ignore[operator]
            raise ConfigError(
                f"{where}: grace_s is {self.grace_s!r}; it must be a number of seconds, 0 to {_LONGEST_S:,}",
                hint="it is how long a window stays open after its end, for events that arrive out of order",
            )
        if self.late_to is not None and not isinstance(self.late_to, DeclaredTopic):
            raise ConfigError(
                f"{where}: late_to is {self.late_to!r}; it must be what app.topic(...) returned"
            )


class DeclaredWindow(Window[K, V], DeclaredTable[Any, Any]):
    """A window of any size.

    `key` and `value` are the codecs of its rows as a table, `own_key` and `own_value` those that the user declared.
    `closes`: the pseudo-topic of its ends.
    """

    __slots__ = ("closes", "default", "default_data", "grace_ms", "late_to", "own_key", "own_value")

    def __init__(
        self,
        group: str,
        name: str,
        options: WindowOptions[K, V],
        key: KeyCodec[Any],
        value: ValueCodec[Any],
        size_ms: int | None,
    ) -> None:
        """`size_ms`: None if windows differ in length."""
        where = f"window {group}.{name}"
        options.check(where)
        try:
            data, admitted = options.value.admit(options.default)
        except REFUSALS as error:
            raise ConfigError(
                f"{where}: the default {options.default!r} is not a value of its type: {error}"
            ) from error
        super().__init__(group, name, key, value, options.upgrade)
        self.own_key: KeyCodec[K] = options.key
        self.own_value: ValueCodec[V] = options.value
        self.grace_ms: int = round(options.grace_s * 1000)  # type: ignore[operator]
        self.default: V = admitted
        self.default_data: bytes = data or b""
        self.late_to: Any = options.late_to
        self.closes: StepTopic[K, V] = StepTopic(
            close_topic_name(name),
            options.key,
            options.value,
            options.types,
            lambda app, group: closed_type(app, group, name, size_ms),
        )

    @property
    def label(self) -> str:
        """The window in messages."""
        return f"window {self.group}.{self.name}"

    @property
    def is_table(self) -> bool:
        """`ctx.window` opens it."""
        return False

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys."""
        return self.own_key

    @property
    def value_codec(self) -> ValueCodec[Any]:
        """The codec of one value."""
        return self.own_value

    def closed_at(self, clock: ClockState) -> int:
        """The mark at a stored state of the clock: what is due up to this time is closed."""
        return max(clock.closed.get(self.name, 0), clock.clock_ms - self.grace_ms)

    def initial(self) -> V:
        """The value of a key that was not assigned: a new object if it can change."""
        return self.default if self.own_value.immutable else self.own_value.decode(self.default_data)

    def parse_place(self, text: str) -> tuple[K, int]:
        """Key and start of `KEY@START`, as `WindowKey` is shown. Raises InputError."""
        key, _, start = text.rpartition("@")
        try:
            moment = datetime.fromisoformat(start)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InputError(
                f"{text!r} is not a key of {self.label}",
                hint="write KEY@START, as in ann@2026-01-31T00:00:00Z",
            )
        return parse_key(self.own_key, key), round(moment.timestamp() * 1000)


class AlignedWindow(DeclaredWindow[K, V]):
    """A window of a fixed size. As a table, it has the keys `WindowKey`. `rows`: the rows of one end."""

    __slots__ = ("every_ms", "rows", "size_ms")

    def __init__(self, group: str, name: str, size: Tumbling | Hopping, options: WindowOptions[K, V]) -> None:
        super().__init__(group, name, options, _window_key(size, options.key), options.value, size.size_ms)
        self.size_ms: int = size.size_ms
        self.every_ms: int = size.every_ms
        self.rows: WindowRows[K, V] = WindowRows(group, name, options.key, options.value, options.upgrade)

    def parse_key(self, text: str) -> WindowKey:
        """The key `KEY@START` of a command line. Raises InputError."""
        key, start_ms = self.parse_place(text)
        return WindowKey(key, start_ms, start_ms + self.size_ms)

    def ends_at(self, time_ms: int) -> Sequence[int]:
        """The ends of the windows that an event of this time is in, in order."""
        every_ms, size_ms = self.every_ms, self.size_ms
        first = (time_ms - size_ms) // every_ms + 1
        return range(first * every_ms + size_ms, time_ms + size_ms + 1, every_ms)


class SessionValue(msgspec.Struct, frozen=True):
    """A session of a key, as `pipeline table show` prints it."""

    start_ms: int
    end_ms: int
    value: Any


class SessionWindow(DeclaredWindow[K, V]):
    """Sessions. As a table, it has the declared keys, and the values are lists of `SessionValue`.

    `rows`: the rows of all keys, as the runtime reads them.
    """

    __slots__ = ("gap_ms", "merge", "rows")

    def __init__(self, group: str, name: str, size: Sessions[V], options: WindowOptions[K, V]) -> None:
        key, value = options.key, options.value
        keys = replace(key, schema=f"{WINDOW_SCHEMA}sessions, {size.gap_ms} ms) {key.schema}")
        as_table: Any = value  # of other values than the declared ones
        values = replace(
            as_table, decode=lambda data: self.decoded_by(data or b"", value.decode), immutable=True
        )
        super().__init__(group, name, options, keys, values, None)
        self.gap_ms: int = size.gap_ms
        self.merge: Callable[[V, V], V] = size.merge
        self.rows: WindowRows[K, Any] = WindowRows(group, name, key, value)

    def converted(self, data: bytes, convert: Callable[[bytes], bytes]) -> bytes:
        """The row with other values of the same sessions."""
        indexed_ms, sessions = unpack_sessions(data, self.label)
        return pack_sessions(indexed_ms, [each._replace(data=convert(each.data)) for each in sessions])

    def decoded_by(self, data: bytes, decode: Callable[[bytes], Any]) -> list[SessionValue]:
        """All sessions of a row."""
        _, sessions = unpack_sessions(data, self.label)
        return [SessionValue(each.start_ms, each.end_ms, decode(each.data)) for each in sessions]

    def parse_key(self, text: str) -> K:
        """A key from the command line. Raises InputError."""
        return parse_key(self.own_key, text)

    def table_rows(self, key: bytes, data: bytes) -> Iterator[tuple[WindowKey, Any]]:
        """The sessions of a stored row, as rows with a `WindowKey`."""
        own = self.own_key.decode(key)
        for each in self.value.decode(data):
            yield WindowKey(own, each.start_ms, each.end_ms), each.value


def declared_window(
    group: str, name: str, size: object, options: WindowOptions[K, V]
) -> DeclaredWindow[K, V]:
    """A window of this size. Raises ConfigError."""
    if isinstance(size, Sessions):
        return SessionWindow(group, name, size, options)
    if isinstance(size, Tumbling | Hopping):
        return AlignedWindow(group, name, size, options)
    raise ConfigError(
        f"window {group}.{name}: size is {size!r}",
        hint="use Tumbling(seconds), Hopping(seconds, every_s) or Sessions(gap_s, merge)",
    )


def close_topic_name(window: str) -> str:
    """The pseudo-topic of the ends of a window. No topic of Kafka has such a name."""
    return f"@window/{window}"


def pack_end(end_ms: int) -> bytes:
    """The end as it begins the key of a row."""
    return end_ms.to_bytes(END_BYTES, "big")


def unpack_end(data: bytes) -> int:
    """The end at the beginning of the key of a row."""
    return int.from_bytes(data[:END_BYTES], "big")


def _window_key(size: Tumbling | Hopping, key: KeyCodec[Any]) -> KeyCodec[Any]:
    """The codec of `WindowKey`. Its schema contains the size, so a window of another size is another table."""

    def encode(row: WindowKey) -> bytes:
        return pack_end(row.end_ms) + (key.encode(row.key) or b"")

    def decode(data: bytes | None) -> WindowKey:
        if data is None or len(data) < END_BYTES:
            raise TypeError("the key of a window begins with 8 bytes")
        end_ms = unpack_end(data)
        return WindowKey(key.decode(data[END_BYTES:]), end_ms - size.size_ms, end_ms)

    def prefix(row: object) -> bytes:
        raise TypeError(f"the keys of windows have no prefixes: {row!r}")

    hops = f"/{size.every_ms}" if size.every_ms != size.size_ms else ""
    return KeyCodec(encode, decode, prefix, False, f"{WINDOW_SCHEMA}{size.size_ms}{hops} ms) {key.schema}")


def _checked_seconds(what: str, seconds: object) -> None:
    if type(seconds) not in {int, float} or not 0.001 <= seconds <= _LONGEST_S:  # type: ignore[operator]
        raise ConfigError(f"{what} is {seconds!r}; it must be a number of seconds, 0.001 to {_LONGEST_S:,}")
