"""Transactions of a command that writes records together with how far it has come: `Transactions`.

One transactional id, fenced before anything is read, and one transaction at a time. A commit whose outcome is not
known, or that was slow enough that the client may have sent it twice, is followed by `renew`: the fence, and a look at
what is committed, always together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import (
    AbortableError,
    InvariantError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Clock, Producers, TransactionalProducer

__all__ = ["Transactions"]

T = TypeVar("T")

_AWAY_S = 60.0  # how long Kafka may be away in the middle of the work
_POLL_S = 0.1
# A repeated request waits the back-off, less the client's jitter of 20 %; a commit this slow may be one.
_SLOW_COMMIT = 0.7


class Transactions:
    """Use it from one thread at a time."""

    def __init__(
        self, transactional_id: str, producers: Producers, clock: Clock, retry_backoff_ms: int
    ) -> None:
        self._transactional_id = transactional_id
        self._producers = producers
        self._clock = clock
        self._retry_backoff_ms = retry_backoff_ms
        self._producer: TransactionalProducer | None = None

    def fence(self, wait_s: float = 0.0) -> None:
        """End every older producer of the id, waiting that long for a Kafka that is away. Nothing is written."""
        deadline = self._clock.monotonic_s() + wait_s
        while True:
            self.close()
            self._producer = self._producers.open(self._transactional_id)
            try:
                self._producer.init()
            except (UnreachableError, RetriableError, UnknownOutcomeError, AbortableError):
                if self._clock.monotonic_s() >= deadline:
                    raise
                self._clock.sleep(_POLL_S)
            else:
                return

    def renew(self, recall: Callable[[], T]) -> T:
        """Fence, and then what `recall` reads of what is committed; it is asked again while Kafka is away."""
        self.fence(_AWAY_S)
        deadline = self._clock.monotonic_s() + _AWAY_S
        while True:
            try:
                return recall()
            except (UnreachableError, RetriableError):
                if self._clock.monotonic_s() > deadline:
                    raise
                self._clock.sleep(_POLL_S)

    def begin(self) -> TransactionalProducer:
        """The producer, in a new transaction."""
        producer = self._fenced()
        producer.begin()
        return producer

    def commit(self) -> bool:
        """Commit what was flushed. Whether that was so slow that `renew` must follow."""
        producer = self._fenced()
        started_s = self._clock.monotonic_s()
        producer.commit()
        return (self._clock.monotonic_s() - started_s) * 1000 >= _SLOW_COMMIT * self._retry_backoff_ms

    def close(self) -> None:
        """Release the client; a transaction that is open is left to the next fence."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _fenced(self) -> TransactionalProducer:
        if self._producer is None:
            raise InvariantError("a transaction without a producer")
        return self._producer
