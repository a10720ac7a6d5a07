"""The end of a window for one key: `ClosedWindow`, as a handler gets it, and `CloseRecord`, as the runtime has it."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from pipeline.api.step_record import StepRecord
from pipeline.core.headers import headers_of
from pipeline.core.place_hash import place_hash

__all__ = ["CloseRecord", "ClosedWindow", "SessionRecord", "closed_type"]

K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)

_SESSION_START = "session-start"  # a header of the record of a closed session: its start, in milliseconds


class CloseRecord(StepRecord):
    """A row of a window that is closed, as a record of the pseudo-topic `@window/NAME`.

    It is due at the end of the window, and its timestamp is the last millisecond in it.
    """

    __slots__ = ("_size_ms",)

    def __init__(
        self, topic: str, partition: int, end_ms: int, size_ms: int, key: bytes, data: bytes
    ) -> None:
        super().__init__(topic, partition, end_ms, key, data)
        self._size_ms = size_ms

    def timestamp(self) -> tuple[int, int]:
        kind, end_ms = super().timestamp()
        return kind, end_ms - 1

    @property
    def topic_id(self) -> str:
        """The identity of the row: a hash of the window, its end, its size and the key."""
        return place_hash(self._topic, self._due_ms, self._size_ms, (self._key or b"").hex())


class SessionRecord(CloseRecord):
    """A closed session. Sessions differ in length, so a header has the start: a dead letter keeps it."""

    __slots__ = ()

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return [(_SESSION_START, str(self._due_ms - self._size_ms).encode())]


class ClosedWindow(msgspec.Struct, Generic[K_co, V_co], frozen=True, gc=False, eq=False):
    """The final value of a key in a window. It stays valid after the call.

    What its handler sends has the timestamp `end_ms - 1` by default, so it belongs to the same window.

    Attributes:
        key: The key, of the window's key type.
        value: The value, of the window's value type.

    Example:
        ```python
        @app.on_close(hourly)
        def publish(hour: ClosedWindow[str, Total], ctx: Context) -> None:
            ctx.send(totals, hour.key, hour.value)
        ```
    """

    key: K_co
    value: V_co
    _message: Any
    _scope: ClassVar[str] = ""
    _size_ms: ClassVar[int | None] = 0

    @property
    def start_ms(self) -> int:
        """The start of the window, in milliseconds since the epoch; of a session, the time of its first event."""
        size_ms = self._size_ms
        if size_ms is None:
            return next(
                int(start or b"") for name, start in headers_of(self._message) if name == _SESSION_START
            )
        return int(self._message.offset()) - size_ms

    @property
    def end_ms(self) -> int:
        """Its end. An event at this time is in the next window. A session ends a millisecond after its last event."""
        return int(self._message.offset())

    def effect_key(self, n: int = 0) -> str:
        """A stable idempotency key, for an effect outside Kafka that this close causes.

        It is the same in each retry, restart, restore, reset and replay. The key is a hash of app, group, window,
        partition, start, end, key and `n`.

        Args:
            n: The number of the effect, from 0.

        Returns:
            32 hexadecimal digits.

        Example:
            ```python
            http.post("/report", json=report, headers={"Idempotency-Key": hour.effect_key()})
            ```
        """
        partition, key = self._message.partition(), self._message.key() or b""
        return place_hash(self._scope, partition, self.start_ms, self.end_ms, key.hex(), n)


@cache
def closed_type(app: str, group: str, window: str, size_ms: int | None) -> type[ClosedWindow[Any, Any]]:
    """The class of what the handlers of a window's ends are given. `size_ms`: None for sessions."""
    namespace = {
        "_scope": f"{app}\x00{group}\x00@window/{window}",
        "_size_ms": size_ms,
        "__module__": ClosedWindow.__module__,
    }
    made = msgspec.defstruct(
        "ClosedWindow", [], bases=(ClosedWindow,), namespace=namespace, frozen=True, gc=False, eq=False
    )
    return cast("type[ClosedWindow[Any, Any]]", made)
