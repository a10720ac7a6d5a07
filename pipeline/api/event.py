"""What a handler is given: one Event, or a Batch of them.

Nothing here copies a record: everything but key and value is read from the client's message when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

import msgspec

from pipeline.core.headers import headers_of
from pipeline.core.names import EVENT_ID_HEADER

__all__ = ["Batch", "Event", "event_id", "event_type"]

K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class Event(msgspec.Struct, Generic[K_co, V_co], frozen=True, gc=False, eq=False):
    """One record of a topic. Valid for as long as you keep it."""

    key: K_co
    value: V_co
    _message: Any
    _scope: ClassVar[str] = ""

    @property
    def timestamp_ms(self) -> int:
        """Milliseconds since the epoch; -1 when the record has no timestamp."""
        return int(self._message.timestamp()[1])

    @property
    def topic(self) -> str:
        return str(self._message.topic())

    @property
    def partition(self) -> int:
        return int(self._message.partition())

    @property
    def offset(self) -> int:
        return int(self._message.offset())

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """As they were produced, in order; a header may have no value.

        Raises UnreadableHeadersError (a ValueError) when a header name is not valid UTF-8.
        """
        return headers_of(self._message)

    @property
    def id(self) -> bytes | None:
        """The event id its producer gave it; None without one. Raises as `headers` does."""
        return event_id(self._message)

    def effect_key(self, n: int = 0) -> str:
        """A stable idempotency key of this record's `n`-th effect in this group: 32 hexadecimal digits.

        Made of app, group, topic, the topic's id, partition, offset and `n`, so it is the same in each retry,
        restart, restore, reset and replay, and different for what another group does. Handlers of one group share
        it: give their effects different `n`. An event that no handler was given has no app and no group.
        """
        place = f"{self._scope}\x00{self.topic}\x00{self.partition}\x00{self.offset}\x00{n}"
        return blake2b(place.encode(), digest_size=16).hexdigest()


@cache
def event_type(app: str, group: str, topic_id: str) -> type[Event[Any, Any]]:
    """The class of the events of a topic in a group: facts that are the same for all of them cost each nothing.

    `topic_id`: a topic that was deleted and created again has other records at the same places.
    """
    scope = {"_scope": f"{app}\x00{group}\x00{topic_id}", "__module__": Event.__module__}
    made = msgspec.defstruct("Event", [], bases=(Event,), namespace=scope, frozen=True, gc=False, eq=False)
    return cast("type[Event[Any, Any]]", made)


def event_id(record: Any) -> bytes | None:
    """The event id in a record's headers: the first one; None without one."""
    for name, value in headers_of(record):
        if name == EVENT_ID_HEADER:
            found: bytes | None = value
            return found
    return None


class Batch(Sequence[Event[K_co, V_co]]):
    """Records of one topic and task, in order. Events are made when they are asked for."""

    __slots__ = ("_keys", "_make", "_messages", "_values")

    def __init__(
        self,
        messages: Sequence[Any],
        keys: Sequence[K_co],
        values: Sequence[V_co],
        make: type[Event[Any, Any]] = Event,
    ) -> None:
        self._make = make
        self._messages = messages
        self._keys = keys
        self._values = values

    @property
    def keys(self) -> Sequence[K_co]:
        return self._keys

    @property
    def values(self) -> Sequence[V_co]:
        return self._values

    @property
    def timestamps_ms(self) -> Sequence[int]:
        return [message.timestamp()[1] for message in self._messages]

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> Event[K_co, V_co]: ...

    @overload
    def __getitem__(self, index: slice) -> Batch[K_co, V_co]: ...

    def __getitem__(self, index: int | slice) -> Event[K_co, V_co] | Batch[K_co, V_co]:
        if isinstance(index, slice):
            return Batch(self._messages[index], self._keys[index], self._values[index], self._make)
        return self._make(self._keys[index], self._values[index], self._messages[index])

    def __iter__(self) -> Iterator[Event[K_co, V_co]]:
        make: Callable[..., Event[K_co, V_co]] = self._make
        return map(make, self._keys, self._values, self._messages)
