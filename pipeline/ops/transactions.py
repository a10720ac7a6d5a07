"""Transactions of a command that writes records together with a receipt: `ReceiptTransactions`.

There is one transactional id, which is fenced before anything is read, and one transaction at a time. A *receipt* is
the position of a load, or the marks of replayed letters. It is committed with its records, and each attempt has a new
nonce. So the committed receipt shows the outcome of a transaction if the client's answer did not.

Each fence is followed by a barrier (`transactions/proof.py`). The leaders of `places` (the partitions of the receipts
and of other data that decisions depend on) report where these partitions end. Every later read must reach these offsets
(`known_ends`).

`write` repeats these steps until one attempt is committed (`transactions/outcomes.py`):

1. Begin, send the records and the receipt, flush, commit.
2. Renew if step 1 failed, if its outcome is unknown, or if the commit was so slow that the client may have sent it
   twice: fence, write the barrier, and read the committed receipts.
3. The last receipt is ours: done. It is the previous one: the attempt was aborted, so repeat step 1. It is another one:
   another process has taken over, so stop.

A crash leaves records with their receipt, or an open transaction, which the next fence aborts.
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

_ATTEMPTS = 5  # at one transaction, before its error is reported
_UNREACHABLE_S = 60.0  # how long to wait for Kafka between two transactions
_POLL_S = 0.1
_SLOW_BARRIERS = 3  # after this many slow aborts, fence without a barrier
_CONTINUE = "all earlier records are committed; run the same command again to continue"


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
        """The end offsets that the leaders of `places` reported after the last fence. Every read must reach them."""
        return self._known_ends

    def fence(self, wait_s: float = 0.0) -> None:
        """Fence every older producer of the transactional id. Commits no transaction.

        `wait_s`: how long to wait while Kafka is unreachable. Raises FencedError, ConfigError, and Kafka's last error.
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
            self._known_ends = {partition: end + 1 for partition, end in ends.items()}
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
        """Commit one transaction, in as many attempts as needed.

        Args:
            what: Names the records in error messages.
            receipt: Makes the receipt of an attempt, with a new nonce.
            send: Sends the records and the receipt.
            outcome: Reads the committed receipts and returns the outcome of an attempt. It is called again while Kafka
                is unreachable.

        Returns:
            The receipt of the committed attempt.

        Raises:
            FencedError: Another process has taken over.
            AbortableError: The attempts failed. A RefusedError is raised without further attempts.
            FatalTaskError: A transaction that Kafka confirmed is missing.
            UnreachableError: Kafka is unreachable.
            ConfigError: Kafka refuses the configuration.
        """
        if self._engine.fence_due:
            raise InvariantError(
                f"{self.transactional_id}: a transaction was started before the fence and the read that it needs"
            )
        policy = _Receipt(self, self._engine, self._clock, what, receipt, send, outcome)
        committed = commit_until_settled(self._engine, policy)
        self._confirm(policy, committed)
        return committed

    def close(self) -> None:
        """Release the client. The next fence aborts a transaction that is open."""
        self._engine.close()

    def _confirm(self, policy: _Receipt[T], committed: T) -> None:
        """Step 2 after a slow commit: check that the transaction that Kafka confirmed is committed."""
        if not self._engine.fence_due:
            return
        policy.fence()
        if policy.settle([committed]) is None:
            raise FatalTaskError(
                f"Kafka confirmed a transaction of {self.transactional_id}, but its records are missing",
                hint="check the brokers: acknowledged records may be missing",
            )


class _Receipt(Generic[T]):
    """`OutcomePolicy` of one transaction: an attempt is a receipt, and the committed receipts show the outcome."""

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
        self._transactions.fence(_UNREACHABLE_S)

    def settle(self, attempts: Sequence[T]) -> T | None:
        """Step 2: the read, with retries. Step 3. All attempts but the last one were aborted."""
        deadline = Deadline(self._clock, _UNREACHABLE_S, _POLL_S)
        while True:
            try:
                found = self._outcome(attempts[-1])
            except (UnreachableError, RetriableError):
                if not deadline.pause():
                    raise
                continue
            if found is CommitOutcome.SUPERSEDED:
                raise FencedError(f"{self._transactions.transactional_id}: another process has taken over")
            return attempts[-1] if found is CommitOutcome.COMMITTED else None

    def abort_failed(self, error: PipelineError) -> None:
        """Do nothing: the fence that follows aborts the transaction."""

    def not_committed(self, error: PipelineError) -> None:
        """Raise an error after several attempts, or at once if a new attempt would be refused again."""
        self._failed += 1
        if isinstance(error, RefusedError):  # because of a record's content: it would be refused again
            raise RefusedError(
                f"{self._what}: {error.message}",
                hint=f"{error.hint or 'correct the record or the settings of the topic'}; {_CONTINUE}",
                topic=error.topic,
            )
        if self._failed == _ATTEMPTS:
            raise AbortableError(
                f"{self._what}: not committed in {_ATTEMPTS} attempts: {error.message}", hint=_CONTINUE
            )
