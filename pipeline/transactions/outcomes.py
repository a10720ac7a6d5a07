"""`commit_until_settled`: repeats the attempts at one commit until its outcome is known.

1. Renew if a fence is due: a fence and a read of the committed outcome, always together. A fence alone would take the
   transactional id back from another process that has committed meanwhile.
2. Attempt: begin, produce, flush, prove, commit (`engine.py`).
3. After a failure, abort if the client reports that nothing was committed.
4. Renew. The read shows which attempt is committed, if any: attempts have nonces.
5. Nothing is committed: the policy gives up, or pauses before the next attempt.

A crash at any point leaves one committed attempt or none. The next process finds the outcome in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.errors import AbortableError, PipelineError, RetriableError, UnknownOutcomeError
from pipeline.transactions.engine import TransactionEngine

__all__ = ["OutcomePolicy", "commit_until_settled"]

A = TypeVar("A")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class OutcomePolicy(Protocol[A, R_co]):
    """One commit: the records that it writes, and how its unknown outcome is settled."""

    def attempt(self) -> A:
        """A new attempt, with a nonce of its own."""
        ...

    def transact(self, attempt: A) -> R_co:
        """Step 2, from begin to commit. Raises what the engine raises."""
        ...

    def fence(self) -> None:
        """Fence. The policy decides how long to wait for Kafka."""
        ...

    def settle(self, attempts: Sequence[A]) -> R_co | None:
        """Read the outcome after the fence: the result of the committed attempt; None if none is committed.

        `attempts`: all so far. It is empty before the first one; only a policy whose result another process may have
        committed returns a result then.

        Raises SupersededError or FencedError if another process has committed meanwhile.
        """
        ...

    def abort_failed(self, error: PipelineError) -> None:
        """An abort failed; the fence that follows ends the transaction."""
        ...

    def not_committed(self, error: PipelineError) -> None:
        """None of the attempts is committed; `error` ended the last one. Raise it to give up, or pause and return."""
        ...


def commit_until_settled(engine: TransactionEngine, policy: OutcomePolicy[A, R]) -> R:
    """The result of the committed attempt.

    Raises what the policy and the engine raise. Then nothing was committed, or another process continues.
    """
    attempts: list[A] = []
    while True:
        attempts.append(policy.attempt())
        try:
            if engine.fence_due:
                settled = _renew(policy, ())  # 1
                if settled is not None:
                    return settled
            return policy.transact(attempts[-1])  # 2
        except (AbortableError, RetriableError) as error:
            failure: PipelineError = error
            unclean = engine.abort()  # 3
            if unclean is not None:
                policy.abort_failed(unclean)
        except UnknownOutcomeError as error:
            failure = error
        settled = _renew(policy, attempts)  # 4
        if settled is not None:
            return settled
        policy.not_committed(failure)  # 5


def _renew(policy: OutcomePolicy[A, R], attempts: Sequence[A]) -> R | None:
    policy.fence()
    return policy.settle(attempts)
