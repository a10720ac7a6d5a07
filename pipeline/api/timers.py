"""What an app declares for timers: `Timers`, and `DeclaredTimers` with the codecs; what fires: `FiredTimer`.

A timer is a row, and an entry of the index of what is due (`due_index.py`):

    prefix of the name | key -> due in ms, 8 bytes, big-endian; and the time of its entry, if that is another one

The entry is never later than the timer. So moving a timer to a later time writes the row only.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import msgspec

from pipeline.api.codecs import ValueCodec, resolve_value
from pipeline.api.declarations import Declaration, DeclaredTable, StepTopic
from pipeline.api.encode_errors import LATEST_MS
from pipeline.api.keys import KeyCodec, parse_key
from pipeline.api.step_record import StepRecord
from pipeline.core.event_time import TIMERS_SCHEMA
from pipeline.core.place_hash import place_hash

__all__ = [
    "Armed",
    "DeclaredTimers",
    "FiredTimer",
    "TimerRecord",
    "Timers",
    "checked_due",
    "timer_topic_name",
]

K = TypeVar("K")
K_co = TypeVar("K_co", covariant=True)

DUE_BYTES = 8


class Timers(Declaration, Generic[K]):
    """Timers of a group, one for each key: a declaration without rows. Made by `app.timers(...)`; compared by identity.

    In a handler, `ctx.timers(timers)` gives those of the record's partition.
    """

    __slots__ = ()

    _kind = "Timers"


class Armed(NamedTuple):
    """A timer that was set. `indexed_ms`: the time of its entry in the index, at most `due_ms`."""

    due_ms: int
    indexed_ms: int


class TimerRows(DeclaredTable[K, Armed]):
    """The rows of timers, as a table."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """The timers in messages."""
        return f"timers {self.group}.{self.name}"


class DeclaredTimers(Timers[K], DeclaredTable[Any, int]):
    """Timers with their codecs.

    As a table, they have the due times as values. `rows`: what is stored. `fires`: the pseudo-topic of due timers.
    """

    __slots__ = ("fires", "rows")

    def __init__(self, group: str, name: str, key: KeyCodec[K], key_type: Any) -> None:
        marked = KeyCodec(key.encode, key.decode, key.prefix, False, f"{TIMERS_SCHEMA}{key.schema}")
        super().__init__(group, name, marked, _DUE)
        self.rows: TimerRows[K] = TimerRows(group, name, key, _ARMED)
        self.fires: StepTopic[K, int] = StepTopic(
            timer_topic_name(name),
            key,
            resolve_value(int, "json", f"timers {group}.{name}", tombstones=False),
            (key_type, int),
            lambda app, own_group: fired_type(app, own_group, name),
        )

    @property
    def label(self) -> str:
        """The timers in messages."""
        return f"timers {self.group}.{self.name}"

    @property
    def is_table(self) -> bool:
        """`ctx.timers` opens them."""
        return False

    @property
    def key_codec(self) -> KeyCodec[Any]:
        """The codec of the keys."""
        return self.rows.key

    def parse_key(self, text: str) -> Any:
        """A key from the command line. Raises InputError."""
        return parse_key(self.rows.key, text)


class TimerRecord(StepRecord):
    """A timer that is due, as a record of the pseudo-topic `@timer/NAME`."""

    __slots__ = ()

    def __init__(self, topic: str, partition: int, due_ms: int, key: bytes) -> None:
        super().__init__(topic, partition, due_ms, key, b"%d" % due_ms)

    @property
    def topic_id(self) -> str:
        """The identity of the timer: a hash of the name, the due time and the key."""
        return place_hash(self._topic, self._due_ms, (self._key or b"").hex())


class FiredTimer(msgspec.Struct, Generic[K_co], frozen=True, gc=False, eq=False):
    """A timer that is due. It stays valid after the call.

    The timer no longer exists when its function is called, so the function may set it again. What the function
    sends has the timestamp `due_ms` by default.

    Attributes:
        key: The key, of the timers' key type.
        due_ms: The time for which it was set, in milliseconds since the epoch. The clock has reached it, and may be
            far beyond it.

    Example:
        ```python
        @app.on_timer(reminders)
        def remind(timer: FiredTimer[str], ctx: Context) -> None:
            ctx.send(reminded, timer.key, timer.due_ms)
        ```
    """

    key: K_co
    due_ms: int
    _message: Any
    _scope: ClassVar[str] = ""

    def effect_key(self, n: int = 0) -> str:
        """A stable idempotency key, for an effect outside Kafka that this timer causes.

        It is the same in each retry, restart, restore, reset and replay. The key is a hash of app, group, name,
        partition, due time, key and `n`. So a timer that is set for the same time twice, and fires twice, has one
        effect key.

        Args:
            n: The number of the effect, from 0.

        Returns:
            32 hexadecimal digits.

        Example:
            ```python
            http.post("/mail", json=mail, headers={"Idempotency-Key": timer.effect_key()})
            ```
        """
        partition, key = self._message.partition(), self._message.key() or b""
        return place_hash(self._scope, partition, self.due_ms, key.hex(), n)


@cache
def fired_type(app: str, group: str, name: str) -> type[FiredTimer[Any]]:
    """The class of what the function of timers is given."""
    namespace = {
        "_scope": f"{app}\x00{group}\x00{timer_topic_name(name)}",
        "__module__": FiredTimer.__module__,
    }
    made = msgspec.defstruct(
        "FiredTimer", [], bases=(FiredTimer,), namespace=namespace, frozen=True, gc=False, eq=False
    )
    return cast("type[FiredTimer[Any]]", made)


def timer_topic_name(name: str) -> str:
    """The pseudo-topic of due timers. No topic of Kafka has such a name."""
    return f"@timer/{name}"


def checked_due(due_ms: object, where: str) -> int:
    """A time for which a timer may be set. Raises TypeError, ValueError with `where`."""
    if type(due_ms) is not int:
        raise TypeError(f"{where}: expected a time in milliseconds as int, got {type(due_ms).__name__}")
    if not 0 <= due_ms <= LATEST_MS:
        raise ValueError(
            f"{where}: the time is {due_ms}; it must be milliseconds since the epoch, from 0 to {LATEST_MS}"
        )
    return due_ms


def _admit(armed: Armed) -> tuple[bytes, Armed]:
    due = armed.due_ms.to_bytes(DUE_BYTES, "big")
    if armed.indexed_ms == armed.due_ms:
        return due, armed
    return due + armed.indexed_ms.to_bytes(DUE_BYTES, "big"), armed


def _decode(data: bytes | None) -> Armed:
    if data is None or len(data) not in {DUE_BYTES, 2 * DUE_BYTES}:
        raise ValueError("the row of a timer has 8 or 16 bytes")
    due_ms, indexed = int.from_bytes(data[:DUE_BYTES], "big"), data[DUE_BYTES:]
    return Armed(due_ms, int.from_bytes(indexed, "big") if indexed else due_ms)


_ARMED: ValueCodec[Armed] = ValueCodec(
    _admit, lambda armed: _admit(armed)[0], _decode, False, True, "due:8 or 16 bytes"
)
_DUE: ValueCodec[int] = ValueCodec(
    lambda due_ms: (_admit(Armed(due_ms, due_ms))[0], due_ms),
    lambda due_ms: _admit(Armed(due_ms, due_ms))[0],
    lambda data: _decode(data).due_ms,
    False,
    True,
    _ARMED.schema,
)
