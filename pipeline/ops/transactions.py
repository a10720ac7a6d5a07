"""Transactions of a command that writes records together with a receipt of them: `Transactions`.

One transactional id, fenced before anything is read, and one transaction at a time. Its *receipt* (the position of a
load, the marks of replayed letters) is committed with its records and has a nonce, new for each attempt, so that it
tells what became of a transaction whose outcome is not known. Each fence is followed by a barrier (runtime/proof.py):
the leaders of `places` (the receipts, and whatever else is decided by) say where they end, and a look at them must
reach that (`known_ends`). `write`, until one
attempt is committed:

1. Begin, send the records and the receipt, flush, commit.
2. Renew, when 1 failed or its outcome is unknown, and after a commit slow enough that the client may have sent it
   twice: the fence, the barrier, and a look at the receipts that are committed, always together.
3. Ours is there: done. What was there before: it was aborted, 1 again. Another one: somebody else goes on, stop.

A crash anywhere leaves records with their receipt, or an open transaction, which the next fence aborts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pipeline.core.names import TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    FencedError,
    InvariantError,
    PipelineError,
    RefusedError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Clock, TransactionalClient, TransactionalClients
from pipeline.runtime.commit.proof import RENEW_SHARE, write_barrier

__all__ = ["Transactions"]

T = TypeVar("T")

_ATTEMPTS = 5  # at one transaction, before its reason is given to the user
_AWAY_S = 60.0  # how long Kafka may be away in the middle of the work
_POLL_S = 0.1
_SLOW_BARRIERS = 3  # where each abort is slow, the last one is followed by a fence alone
_CONTINUE = "what precedes them is committed; run the same command again to continue"


class Transactions:
    """Use it from one thread at a time."""

    def __init__(
        self,
        transactional_id: str,
        places: Sequence[TopicPartition],
        producers: TransactionalClients,
        clock: Clock,
        retry_backoff_ms: int,
    ) -> None:
        self._transactional_id = transactional_id
        self._places = list(places)
        self._producers = producers
        self._clock = clock
        self._retry_backoff_ms = retry_backoff_ms
        self._producer: TransactionalClient | None = None
        self._known_ends: Mapping[TopicPartition, int] = {}

    @property
    def known_ends(self) -> Mapping[TopicPartition, int]:
        """These partitions are at least this long, as their leaders have said; what a look has to reach."""
        return self._known_ends

    def fence(self, wait_s: float = 0.0) -> None:
        """End every older producer of the id, waiting that long for an unreachable Kafka. Nothing is committed.

        Raises FencedError, ConfigError, and what Kafka last answered.
        """
        deadline = self._clock.monotonic_s() + wait_s
        slow = failed = 0
        while True:
            self.close()
            self._producer = self._producers.open(self._transactional_id)
            try:
                self._producer.init()
            except (UnreachableError, RetriableError, UnknownOutcomeError, AbortableError):
                if self._clock.monotonic_s() >= deadline:
                    raise
                self._clock.sleep(_POLL_S)
                continue
            if slow == _SLOW_BARRIERS:
                return
            try:
                ends, clean = write_barrier(self._producer, self._places, self._clock, self._retry_backoff_ms)
            except (UnreachableError, RetriableError, UnknownOutcomeError, AbortableError):
                failed += 1
                if failed >= _ATTEMPTS and self._clock.monotonic_s() >= deadline:
                    raise
                self._clock.sleep(_POLL_S)
                continue
            self._known_ends = {place: end + 1 for place, end in ends.items()}
            if clean:
                return
            slow += 1

    def write(
        self,
        what: str,
        receipt: Callable[[], T],
        send: Callable[[TransactionalClient, T], None],
        outcome: Callable[[T], CommitOutcome],
    ) -> T:
        """Commit one transaction, in as many attempts as it takes; the receipt of the one that was committed.

        `what`: its records, for the error that gives them up. `receipt` makes one for an attempt, with a nonce of
        its own; `send` sends the records and it; `outcome` reads what is committed now, and is asked again while
        Kafka is away. Raises FencedError (another process continues), AbortableError (given up; at once where it is a
        RefusedError), FatalTaskError (what was confirmed is gone), UnreachableError, ConfigError.
        """
        reason: PipelineError | None = None
        for _ in range(_ATTEMPTS):
            attempt = receipt()
            try:
                slow = self._transact(send, attempt)  # 1
            except (AbortableError, RetriableError, UnknownOutcomeError) as error:
                reason, confirmed = error, False
            else:
                if not slow:
                    return attempt
                confirmed = True
            found = self._renew(outcome, attempt)  # 2
            if found is CommitOutcome.COMMITTED:  # 3
                return attempt
            if found is CommitOutcome.SUPERSEDED:
                raise FencedError(f"{self._transactional_id}: another one goes on")
            if confirmed:
                raise FatalTaskError(
                    f"Kafka confirmed a transaction of {self._transactional_id} and has lost it",
                    hint="check the brokers: acknowledged records may be missing",
                )
            if isinstance(reason, RefusedError):  # for what is in a record: it would be refused again
                raise RefusedError(
                    f"{what}: {reason.message}",
                    hint=f"{reason.hint or 'correct the record or the settings of the topic'}; {_CONTINUE}",
                    topic=reason.topic,
                )
        raise AbortableError(
            f"{what}: not committed in {_ATTEMPTS} attempts: {reason.message if reason else 'no reason given'}",
            hint=_CONTINUE,
        )

    def close(self) -> None:
        """Release the client; a transaction that is open is left to the next fence."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _transact(self, send: Callable[[TransactionalClient, T], None], receipt: T) -> bool:
        """Step 1. Whether the commit was so slow that step 2 must follow."""
        producer = self._producer
        if producer is None:
            raise InvariantError("a transaction without a fence")
        producer.begin()
        send(producer, receipt)
        producer.flush()
        started_s = self._clock.monotonic_s()
        producer.commit()
        return (self._clock.monotonic_s() - started_s) * 1000 >= RENEW_SHARE * self._retry_backoff_ms

    def _renew(self, outcome: Callable[[T], CommitOutcome], receipt: T) -> CommitOutcome:
        """Step 2: fence, and then look; again while Kafka is away."""
        self.fence(_AWAY_S)
        deadline = self._clock.monotonic_s() + _AWAY_S
        while True:
            try:
                return outcome(receipt)
            except (UnreachableError, RetriableError):
                if self._clock.monotonic_s() > deadline:
                    raise
                self._clock.sleep(_POLL_S)
