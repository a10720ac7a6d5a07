"""What becomes of one event: `Delivery`, the caller's handle, and `Delivered`, what it holds in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple

import msgspec

from pipeline.errors import PipelineError

__all__ = ["Delivered", "Delivery", "OnDelivery", "renew_lock"]

Place = tuple[int, int, int]  # partition, offset, milliseconds


class Delivered(NamedTuple):
    """Where an event is now. `timestamp_ms`: the record's, since the epoch."""

    topic: str
    partition: int
    offset: int
    id: bytes
    timestamp_ms: int


class Delivery(msgspec.Struct, eq=False):
    """The outcome of one `send`: as a `concurrent.futures.Future`, but cheap while nobody waits for it.

    `result` and `exception` wait; `future` gives a true Future, for `concurrent.futures.wait` and
    `asyncio.wrap_future`. An event that was sent cannot be cancelled.
    """

    topic: str
    key: bytes | None
    id: bytes
    size: int
    on_delivery: Callable[[Delivery], object] | None
    sequence: int = 0
    seen: bool = False  # somebody has been told how it ended
    _outcome: Place | PipelineError | None = None
    _future: Future[Delivered] | None = None

    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self._outcome is not None

    def result(self, timeout: float | None = None) -> Delivered:
        """Wait up to `timeout` seconds, or for as long as it takes; where the event is.

        Raises DeliveryError (send it again under the same id), ConfigError (no such topic, not allowed, too
        large), TimeoutError (not known yet).
        """
        failure = self.exception(timeout)
        if failure is not None:
            raise failure
        return self._delivered()

    def exception(self, timeout: float | None = None) -> PipelineError | None:
        """Wait likewise; why the event was not delivered, or None when it was. Raises TimeoutError."""
        if self._outcome is None:
            self.future().exception(timeout)
        self.seen = True
        return self._outcome if isinstance(self._outcome, PipelineError) else None

    def future(self) -> Future[Delivered]:
        """A Future of the same outcome; the same one each time."""
        with _Making.lock:
            if self._future is None:
                future: Future[Delivered] = Future()
                future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
                self._future = future
        self.seen = True
        # After the line that shows the future to `finish`: one of the two sees what the other has set.
        if self._outcome is not None:
            self._settle(self._future)
        return self._future

    def finish(self, outcome: Place | PipelineError) -> None:
        """Say what became of it; once. For the outbox."""
        self._outcome = outcome
        if self._future is not None:
            self._settle(self._future)

    def disown(self, reason: PipelineError) -> None:
        """The same in a forked child, where nobody else is left who could wait, and locks may be held for ever."""
        if self._outcome is None:
            self._outcome = reason
            self._future = None

    def _settle(self, future: Future[Delivered]) -> None:
        with suppress(InvalidStateError):  # both may see it
            if isinstance(self._outcome, PipelineError):
                future.set_exception(self._outcome)
            else:
                future.set_result(self._delivered())

    def _delivered(self) -> Delivered:
        partition, offset, milliseconds = self._outcome  # type: ignore[misc]
        return Delivered(self.topic, partition, offset, self.id, milliseconds)


OnDelivery = Callable[[Delivery], object]
"""Told of a delivery that is done, on the producer's own thread: do not block there."""


class _Making:
    """A lock held while a Delivery's one Future is made."""

    lock = threading.Lock()


def renew_lock() -> None:
    """In a forked child: another thread may have held the old one."""
    _Making.lock = threading.Lock()
