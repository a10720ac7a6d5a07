"""Transactions of a command that writes records together with a receipt of them: `ReceiptTransactions`.

One transactional id, fenced before anything is read, and one transaction at a time. Its *receipt* (the position of a
load, the marks of replayed letters) is committed with its records and has a nonce, new for each attempt, so that it
tells what became of a transaction whose outcome is not known. Each fence is followed by a barrier
(`transactions/proof.py`): the leaders of `places` (the receipts, and whatever else is decided by) say where they end,
and a look at them must reach that (`known_ends`). `write`, until one attempt is committed (`transactions/outcomes.py`):

1. Begin, send the records and the receipt, flush, commit.
2. Renew, when 1 failed or its outcome is unknown, and after a commit slow enough that the client may have sent it
   twice: the fence, the barrier, and a look at the receipts that are committed, always together.
3. Ours is there: done. What was there before: it was aborted, 1 again. Another one: another process continues, stop.

A crash anywhere leaves records with their receipt, or an open transaction, which the next fence aborts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

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
    UnreachableError,
)
from pipeline.ports import Clock, Deadline, TransactionalClients
from pipeline.transactions.engine import PASSING, TransactionEngine
from pipeline.transactions.outcomes import commit_until_settled

__all__ = ["ReceiptTransactions"]

T = TypeVar("T")

_ATTEMPTS = 5  # at one transaction, before its reason is given to the user
_AWAY_S = 60.0  # how long Kafka may be away in the middle of the work
_POLL_S = 0.1
_SLOW_BARRIERS = 3  # where each abort is slow, the last one is followed by a fence alone
_CONTINUE = "what precedes them is committed; run the same command again to continue"


class ReceiptTransactions:
    """Use it from one thread at a time."""

    def __init__(
        self,
        transactional_id: str,
        places: Sequence[TopicPartition],
        producers: TransactionalClients,
        clock: Clock,
        retry_backoff_ms: int,
    ) -> None:
        self.transactional_id = transactional_id
        self._places = list(places)
        self._clock = clock
        self._engine = TransactionEngine(transactional_id, producers, clock, retry_backoff_ms)
        self._known_ends: Mapping[TopicPartition, int] = {}

    @property
    def known_ends(self) -> Mapping[TopicPartition, int]:
        """These partitions are at least this long, as their leaders have said; what a look has to reach."""
        return self._known_ends

    def fence(self, wait_s: float = 0.0) -> None:
        """End every older producer of the id, waiting that long for an unreachable Kafka. Nothing is committed.

        Raises FencedError, ConfigError, and what Kafka last answered.
        """
        deadline = Deadline(self._clock, wait_s, _POLL_S)
        slow = failed = 0
        while True:
            self._engine.fence(lambda _error: deadline.pause())
            if slow == _SLOW_BARRIERS:
                return
            try:
                ends = self._engine.barrier(self._places)
            except PASSING:
                failed += 1
                if failed >= _ATTEMPTS and deadline.has_passed():
                    raise
                self._clock.sleep(_POLL_S)
                continue
            self._known_ends = {place: end + 1 for place, end in ends.items()}
            if not self._engine.fence_due:
                return
            slow += 1

    def write(
        self,
        what: str,
        receipt: Callable[[], T],
        send: Callable[[TransactionEngine, T], None],
        outcome: Callable[[T], CommitOutcome],
    ) -> T:
        """Commit one transaction, in as many attempts as it takes; the receipt of the one that was committed.

        `what`: its records, for the error that gives them up. `receipt` makes one for an attempt, with a nonce of
        its own; `send` sends the records and it; `outcome` reads what is committed now, and is asked again while
        Kafka is unreachable.

        Raises FencedError (another process continues), AbortableError (given up; at once where it is a RefusedError),
        FatalTaskError (what was confirmed is gone), UnreachableError, ConfigError.
        """
        if self._engine.fence_due:
            raise InvariantError(
                f"{self.transactional_id}: a transaction without a fence and a look behind it"
            )
        policy = _Receipt(self, self._engine, self._clock, what, receipt, send, outcome)
        committed = commit_until_settled(self._engine, policy)
        self._confirm(policy, committed)
        return committed

    def close(self) -> None:
        """Release the client; a transaction that is open is left to the next fence."""
        self._engine.close()

    def _confirm(self, policy: _Receipt[T], committed: T) -> None:
        """Step 2 after a commit that was slow: what Kafka has confirmed must be there."""
        if not self._engine.fence_due:
            return
        policy.fence()
        if policy.settle([committed]) is None:
            raise FatalTaskError(
                f"Kafka confirmed a transaction of {self.transactional_id} and has lost it",
                hint="check the brokers: acknowledged records may be missing",
            )


class _Receipt(Generic[T]):
    """`OutcomePolicy` of one transaction: an attempt is a receipt, and the committed receipts settle a doubt."""

    def __init__(
        self,
        transactions: ReceiptTransactions,
        engine: TransactionEngine,
        clock: Clock,
        what: str,
        receipt: Callable[[], T],
        send: Callable[[TransactionEngine, T], None],
        outcome: Callable[[T], CommitOutcome],
    ) -> None:
        self._transactions = transactions
        self._engine = engine
        self._clock = clock
        self._what = what
        self._send = send
        self._outcome = outcome
        self._failed = 0
        self.attempt = receipt

    def transact(self, attempt: T) -> T:
        """Step 1."""
        self._engine.begin()
        self._send(self._engine, attempt)
        self._engine.flush()
        self._engine.commit()
        return attempt

    def fence(self) -> None:
        """Step 2: the fence and the barrier."""
        self._transactions.fence(_AWAY_S)

    def settle(self, attempts: Sequence[T]) -> T | None:
        """Step 2: the read, with retries; and step 3. The receipts before the last one were aborted."""
        deadline = Deadline(self._clock, _AWAY_S, _POLL_S)
        while True:
            try:
                found = self._outcome(attempts[-1])
            except (UnreachableError, RetriableError):
                if not deadline.pause():
                    raise
                continue
            if found is CommitOutcome.SUPERSEDED:
                raise FencedError(f"{self._transactions.transactional_id}: another process continues")
            return attempts[-1] if found is CommitOutcome.COMMITTED else None

    def abort_failed(self, error: PipelineError) -> None:
        """The fence that follows ends the transaction."""

    def not_committed(self, error: PipelineError) -> None:
        """Give up what would be refused again, and after some attempts."""
        self._failed += 1
        if isinstance(error, RefusedError):  # for what is in a record: it would be refused again
            raise RefusedError(
                f"{self._what}: {error.message}",
                hint=f"{error.hint or 'correct the record or the settings of the topic'}; {_CONTINUE}",
                topic=error.topic,
            )
        if self._failed == _ATTEMPTS:
            raise AbortableError(
                f"{self._what}: not committed in {_ATTEMPTS} attempts: {error.message}", hint=_CONTINUE
            )
