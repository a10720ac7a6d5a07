"""The outcome of a sent event: `Delivery`, the caller's handle; `Delivered`, its result; errors about lost events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import ClassVar, NamedTuple, Protocol
from weakref import WeakValueDictionary

import msgspec

from pipeline.core.records import Record
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, DeliveryError, PipelineError
from pipeline.forks import in_children

__all__ = [
    "Delivered",
    "Delivery",
    "OnDelivery",
    "Origin",
    "RuntimeDelivery",
    "named",
    "text_of",
    "undelivered",
]


class Delivered(NamedTuple):
    """Where an event was written.

    Attributes:
        topic: The topic's name.
        partition: The partition, from 0.
        offset: The record's offset.
        id: The event id.
        timestamp_ms: The record's timestamp, in milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    id: bytes
    timestamp_ms: int


class Delivery(msgspec.Struct, eq=False):
    """The outcome of one `Producer.send`, like a `concurrent.futures.Future`.

    `result` and `exception` wait. `future` gives a Future, for `concurrent.futures.wait` and `asyncio.wrap_future`.
    An event that was sent cannot be cancelled.

    Attributes:
        topic: The name of the event's topic.
        key: The event's key as bytes, or None.
        id: The event id.

    Example:
        ```python
        delivery = producer.send(orders, "k", Order(5))
        print(delivery.result(timeout=10).offset)
        ```
    """

    topic: str
    key: bytes | None
    id: bytes
    _seen: bool = False  # the program has read the outcome
    _done: bool = False  # the outcome is known
    _failure: PipelineError | None = None
    _partition: int = -1
    _offset: int = -1
    _timestamp_ms: int = -1
    _future: Future[Delivered] | None = None

    def done(self) -> bool:
        """Whether the outcome is known.

        Returns:
            True after the event was delivered or has failed.
        """
        return self._done

    def result(self, timeout: float | None = None) -> Delivered:
        """Wait for the event's delivery.

        Args:
            timeout: Seconds to wait. Default: until the outcome is known, at most `delivery_timeout_s`.

        Returns:
            Where the event was written.

        Raises:
            DeliveryError: It was not delivered, or that is not known. Send it again under the same id.
            ConfigError: The topic does not exist, may not be written, or refuses the event's size.
            TimeoutError: The outcome is not known yet.

        Example:
            ```python
            offset = producer.send(orders, "k", Order(5)).result(timeout=10).offset
            ```
        """
        failure = self.exception(timeout)
        if failure is not None:
            raise failure
        return self._delivered()

    def exception(self, timeout: float | None = None) -> PipelineError | None:
        """Wait for the outcome, without raising the event's error.

        Args:
            timeout: Seconds to wait. Default: until the outcome is known.

        Returns:
            Why the event was not delivered (as `result` raises it), or None if it was.

        Raises:
            TimeoutError: The outcome is not known yet.
        """
        if not self._done:
            self.future().exception(timeout)
        self._seen = True
        return self._failure

    def future(self) -> Future[Delivered]:
        """A Future of the same outcome.

        Returns:
            The same object each time. It cannot be cancelled.

        Example:
            ```python
            delivered = await asyncio.wrap_future(delivery.future())
            ```
        """
        with _Making.lock:
            if self._future is None:
                future: Future[Delivered] = Future()
                future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
                self._future = future
        self._seen = True
        # Only after `_future` is set: so this method or `finish`, or both, see both attributes and set the result.
        if self._done:
            self._settle(self._future)
        return self._future

    def _settle(self, future: Future[Delivered]) -> None:
        with suppress(InvalidStateError):  # both threads may set it
            if self._failure is not None:
                future.set_exception(self._failure)
            else:
                future.set_result(self._delivered())

    def _delivered(self) -> Delivered:
        return Delivered(self.topic, self._partition, self._offset, self.id, self._timestamp_ms)


class RuntimeDelivery(Delivery, eq=False):
    """The outbox's view of a delivery.

    `size`: in bytes, for the limit. `origin`: the number of its outbox. `sequence`: the number of its `send`.

    It refers to no object that the garbage collector tracks. So the collector need not track it either, until a caller
    takes its Future.
    """

    size: int = 0
    on_delivery: Callable[[Delivery], object] | None = None
    origin: int = 0
    sequence: int = 0

    def future(self) -> Future[Delivered]:
        """As `Delivery.future`; the outbox serves its client without a break, because a caller may wait."""
        if not self._done:
            origin = Origin.known.get(self.origin)
            if origin is not None:
                origin.hurry()
        return Delivery.future(self)

    @property
    def seen(self) -> bool:
        """Whether the program has read the outcome."""
        return self._seen

    @seen.setter
    def seen(self, seen: bool) -> None:
        self._seen = seen

    def place(self, record: Record) -> None:
        """Note where the event was written. `finish` follows."""
        self._partition = record.partition()
        self._offset = record.offset()
        self._timestamp_ms = record.timestamp()[1]

    def finish(self, failure: PipelineError | None = None) -> None:
        """Make the outcome known. Called once; `place` before, if the event was delivered."""
        self._failure = failure
        self._done = True
        if self._future is not None:
            self._settle(self._future)

    def disown(self, reason: PipelineError) -> None:
        """Set the outcome in a forked child. No other thread waits there, and no lock may be taken."""
        if not self._done:
            self._failure = reason
            self._done = True
            self._future = None


OnDelivery = Callable[[Delivery], object]
"""Called with each completed delivery, on the producer's thread. It must not block."""


class Waited(Protocol):
    """An outbox, as its deliveries see it."""

    def hurry(self) -> None: ...


class Origin:
    """The outboxes of this process, by number."""

    known: ClassVar[WeakValueDictionary[int, Waited]] = WeakValueDictionary()


class _Making:
    """The lock under which the only Future of a Delivery is created."""

    lock = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: replace the lock, which another thread of the parent may have held."""
    _Making.lock = threading.Lock()


in_children(_renew_lock)


def undelivered(
    count: int, first: Sequence[Delivery], what: str, reason: PipelineError | None = None
) -> DeliveryError:
    """An error about `count` events. `first`: the first ones. `what`: happened to them.

    `reason`: why the first one failed. An error of settings is not fixed by a retry.
    """
    because = f"; the first one: {reason.message}" if reason is not None else ""
    hint = "they may have been written all the same: send them again under the same ids"
    if isinstance(reason, ConfigError) and reason.hint:
        hint = reason.hint
    names = ", ".join(named(delivery) for delivery in first) + (", ..." if count > len(first) else "")
    return DeliveryError(
        f"{counted(count, 'event')} {'was' if count == 1 else 'were'} {what}: {names}{because}",
        hint=hint,
        count=count,
        events=tuple((delivery.topic, delivery.key, delivery.id) for delivery in first),
    )


def named(delivery: Delivery) -> str:
    """An event in a message: its id, key and topic."""
    key = "without a key" if delivery.key is None else f"of key {delivery.key!r}"
    return f"event {text_of(delivery.id)} {key} for topic {delivery.topic}"


def text_of(data: bytes) -> str:
    """An id as text."""
    return data.decode(errors="backslashreplace")
