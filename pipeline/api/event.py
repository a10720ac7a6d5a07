"""What a handler is given: one Event, or a Batch of them.

Nothing here copies a record: everything but key and value is read from the client's message when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, overload

import msgspec

from pipeline.core.headers import headers_of
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.core.place_hash import place_hash

__all__ = ["Batch", "Event", "RuntimeBatch", "event_id", "event_type"]

K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class Event(msgspec.Struct, Generic[K_co, V_co], frozen=True, gc=False, eq=False):
    """One record of a topic. It stays valid after the call.

    Attributes:
        key: The record's key, of the topic's key type; None for a topic that was declared without keys.
        value: The record's value, of the topic's value type.

    Example:
        ```python
        @app.handler(orders)
        def log(event: Event[str, Order], ctx: Context) -> None:
            print(event.topic, event.partition, event.offset, event.key, event.value)
        ```
    """

    key: K_co
    value: V_co
    _message: Any
    _scope: ClassVar[str] = ""

    @property
    def timestamp_ms(self) -> int:
        """The record's timestamp, in milliseconds since the epoch; -1 if it has none."""
        return int(self._message.timestamp()[1])

    @property
    def topic(self) -> str:
        """The name of the record's topic."""
        return str(self._message.topic())

    @property
    def partition(self) -> int:
        """The record's partition, from 0."""
        return int(self._message.partition())

    @property
    def offset(self) -> int:
        """The record's offset in its partition."""
        return int(self._message.offset())

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The record's headers, in the order in which they were produced; a header may have no value.

        Raises:
            ValueError: A header name is not valid UTF-8.
        """
        return headers_of(self._message)

    @property
    def id(self) -> bytes | None:
        """The event id: the record's first header `event-id`. None if it has none.

        Raises:
            ValueError: A header name is not valid UTF-8.
        """
        return event_id(self._message)

    def effect_key(self, n: int = 0) -> str:
        """A stable idempotency key, for an effect outside Kafka that this record causes in this group.

        It is the same in each retry, restart, restore, reset and replay, and different in each group. Handlers of one
        group share it: give their effects different numbers. The key is a hash of app, group, topic, topic id,
        partition, offset and `n`. An event of a test that no handler was given has neither app nor group.

        Args:
            n: The number of the effect, from 0.

        Returns:
            32 hexadecimal digits.

        Example:
            ```python
            http.post("/charge", json=charge, headers={"Idempotency-Key": event.effect_key()})
            ```
        """
        return place_hash(self._scope, self.topic, self.partition, self.offset, n)


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
    """Records of one topic and partition, in order: what a batch handler is given. It stays valid after the call.

    A sequence of `Event`. `keys` and `values` give the same without making the events.

    Example:
        ```python
        @app.batch_handler(orders)
        def bill_all(batch: Batch[str, Order], ctx: Context) -> None:
            known = ctx.table(customers).get_many(batch.keys)
            for event in batch:
                if event.key in known:
                    ctx.send(bills, event.key, Bill(event.value.amount))
        ```
    """

    __slots__ = ("_keys", "_make", "_messages", "_values")

    if TYPE_CHECKING:  # set by RuntimeBatch
        _keys: Sequence[K_co]
        _make: type[Event[Any, Any]]
        _messages: Sequence[Any]
        _values: Sequence[V_co]

    @property
    def keys(self) -> Sequence[K_co]:
        """The records' keys."""
        return self._keys

    @property
    def values(self) -> Sequence[V_co]:
        """The records' values."""
        return self._values

    @property
    def timestamps_ms(self) -> Sequence[int]:
        """The records' timestamps, in milliseconds since the epoch; -1 for a record without one."""
        return [message.timestamp()[1] for message in self._messages]

    def __len__(self) -> int:
        """The number of records."""
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> Event[K_co, V_co]: ...

    @overload
    def __getitem__(self, index: slice) -> Batch[K_co, V_co]: ...

    def __getitem__(self, index: int | slice) -> Event[K_co, V_co] | Batch[K_co, V_co]:
        """The event at an index, or a batch of the events in a slice. Raises IndexError."""
        if isinstance(index, slice):
            return RuntimeBatch(self._messages[index], self._keys[index], self._values[index], self._make)
        return self._make(self._keys[index], self._values[index], self._messages[index])

    def __iter__(self) -> Iterator[Event[K_co, V_co]]:
        """The events, in order."""
        make: Callable[..., Event[K_co, V_co]] = self._make
        return map(make, self._keys, self._values, self._messages)


class RuntimeBatch(Batch[K_co, V_co]):
    """A batch as the runtime makes it."""

    __slots__ = ()

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

    def message(self, index: int) -> Any:
        """The record at an index."""
        return self._messages[index]
