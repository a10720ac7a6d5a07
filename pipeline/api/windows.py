"""What an app declares for windows: `Window`, with the sizes `Tumbling` and `Hopping`; and `DeclaredWindow`.

A window is stored as rows of a table whose keys begin with the end of the window. So the rows that are due first come
first, without an index:

    prefix of the name | end in ms, 8 bytes, big-endian | key -> value
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pipeline.api.closed_windows import closed_type
from pipeline.api.codecs import ValueCodec
from pipeline.api.declarations import LONGEST_TTL_S, DeclaredTable, DeclaredTopic, StepTopic, Topic
from pipeline.api.encode_errors import REFUSALS
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.core.event_time import WINDOW_SCHEMA
from pipeline.core.records import iso_time
from pipeline.errors import ConfigError, InputError

__all__ = [
    "END_BYTES",
    "MAX_HOPS",
    "DeclaredWindow",
    "Hopping",
    "Tumbling",
    "Window",
    "WindowKey",
    "WindowRows",
    "close_topic_name",
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
    """Windows one after the other: each event is in one. They are aligned to the epoch, in UTC.

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


class Window(Generic[K, V]):
    """A window of a group: a declaration without rows. Made by `app.window(...)`; compared by identity.

    In a handler, `ctx.window(window)` gives the rows of the task.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # DeclaredWindow has them from DeclaredTable
        _group: str
        _name: str

    @property
    def name(self) -> str:
        """The window's name."""
        return self._name

    @property
    def group(self) -> str:
        """The name of its group."""
        return self._group

    def __repr__(self) -> str:
        return f"Window({self.group}.{self.name})"


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


class DeclaredWindow(Window[K, V], DeclaredTable[Any, V]):
    """A window with its codecs.

    As a table, it has the keys `WindowKey`. `rows`: the rows of one end. `closes`: the pseudo-topic of its ends.
    """

    __slots__ = ("closes", "default", "default_data", "every_ms", "grace_ms", "late_to", "rows", "size_ms")

    def __init__(
        self,
        group: str,
        name: str,
        key: KeyCodec[K],
        value: ValueCodec[V],
        upgrade: Callable[[Any], V] | None,
        *,
        size: object,
        grace_s: object,
        default: V,
        late_to: object,
        types: tuple[Any, Any],
    ) -> None:
        where = f"window {group}.{name}"
        if not isinstance(size, Tumbling | Hopping):
            raise ConfigError(
                f"{where}: size is {size!r}", hint="use Tumbling(seconds) or Hopping(seconds, every_s)"
            )
        if type(grace_s) not in {int, float} or not 0 <= grace_s <= _LONGEST_S:  # type: ignore[operator]
            raise ConfigError(
                f"{where}: grace_s is {grace_s!r}; it must be a number of seconds, 0 to {_LONGEST_S:,}",
                hint="it is how long a window stays open after its end, for events that arrive out of order",
            )
        if late_to is not None and not isinstance(late_to, DeclaredTopic):
            raise ConfigError(f"{where}: late_to is {late_to!r}; it must be what app.topic(...) returned")
        try:
            data, admitted = value.admit(default)
        except REFUSALS as error:
            raise ConfigError(f"{where}: the default {default!r} is not a value of it: {error}") from error
        super().__init__(group, name, _window_key(size, key), value, upgrade)
        self.size_ms: int = size.size_ms
        self.every_ms: int = size.every_ms
        self.grace_ms: int = round(grace_s * 1000)  # type: ignore[operator]
        self.default: V = admitted
        self.default_data: bytes = data or b""
        self.late_to: Topic[Any, Any] | None = late_to
        self.rows: WindowRows[K, V] = WindowRows(group, name, key, value, upgrade)
        self.closes: StepTopic[K, V] = StepTopic(
            close_topic_name(name),
            key,
            value,
            types,
            lambda app, group: closed_type(app, group, name, self.size_ms),
        )

    @property
    def label(self) -> str:
        """The window in messages."""
        return f"window {self.group}.{self.name}"

    @property
    def is_table(self) -> bool:
        """`ctx.window` opens it."""
        return False

    def parse_key(self, text: str) -> WindowKey:
        """The key `KEY@START` of a command line, as `WindowKey` is shown. Raises InputError."""
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
        start_ms = round(moment.timestamp() * 1000)
        return WindowKey(parse_key(self.rows.key, key), start_ms, start_ms + self.size_ms)

    def initial(self) -> V:
        """The value of a key that was not assigned: a new object if it can change."""
        return self.default if self.value.immutable else self.value.decode(self.default_data)

    def ends_at(self, time_ms: int) -> Sequence[int]:
        """The ends of the windows that an event of this time is in, in order."""
        every_ms, size_ms = self.every_ms, self.size_ms
        first = (time_ms - size_ms) // every_ms + 1
        return range(first * every_ms + size_ms, time_ms + size_ms + 1, every_ms)


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
