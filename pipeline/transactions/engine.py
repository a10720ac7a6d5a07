"""`TransactionEngine`: the steps of a fenced transaction, over ports.

The commit protocol of a task (`runtime/commit/commit_protocol.py`) has the same numbers. It adds a read of the journal
to step 1, and step 7: apply the table writes to RocksDB.

| step | method | a crash before it leaves | a crash after it leaves |
| --- | --- | --- | --- |
| 1 fence | `fence` | what the last transaction left | no open transaction, and no older producer that can commit |
| 2 begin | `begin` | the same | the same: the client alone knows of it |
| 3 produce | `send`, `append` | the same | an open transaction, which the next fence or its time-out aborts |
| 4 flush | `flush` | an open transaction | an open transaction with every record |
| 5 prove | `proof.prove_read`, by users that read | an open transaction | the same |
| 6 commit | `commit` | an open transaction | the records are committed, or the coordinator commits them |

`abort` ends a transaction instead of 6. `barrier` is a transaction that is always aborted: it writes one record to each
partition. The offsets of these records are the ends of the partitions according to their leaders.

Two rules hold for every user:

- A fence is due after each end that was not quick and clean: a failure, an abort after a failure, and an end that took
  RENEW_SHARE of the client's retry back-off or longer. `begin` raises InvariantError while a fence is due.
- A commit that raises UnknownOutcomeError is never repeated under the same fence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing

from pipeline.core.names import TopicPartition
from pipeline.errors import (
    AbortableError,
    InvariantError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Clock, Output, SystemClock, TransactionalClient, TransactionalClients
from pipeline.transactions.proof import BARRIER

__all__ = ["ABORT_TIMEOUT_S", "PASSING", "RENEW_SHARE", "TransactionEngine", "try_fence"]

# librdkafka resends EndTxn after its back-off (jitter 20 %) and reports one clean end. If the end took this share of
# the back-off, the request may have been sent twice, and the late one could end the next transaction.
RENEW_SHARE = 0.7
ABORT_TIMEOUT_S = 5.0

PASSING = (UnreachableError, RetriableError, UnknownOutcomeError, AbortableError)
"""Failures of a fence or a barrier after which another try may succeed."""


def _never(_error: PipelineError) -> bool:
    return False


class TransactionEngine:
    """The transactions of one transactional id: one client and one transaction at a time, from one thread at a time.

    Args:
        transactional_id: a newer engine with the same id fences this one.
        producers: opens the clients.
        clock: times commits and aborts.
        retry_backoff_ms: of the clients that `producers` opens (`retry.backoff.ms`).
    """

    def __init__(
        self, transactional_id: str, producers: TransactionalClients, clock: Clock, retry_backoff_ms: int
    ) -> None:
        self._id = transactional_id
        self._producers = producers
        self._clock = clock
        self._slow_s = RENEW_SHARE * retry_backoff_ms / 1000
        self._producer: TransactionalClient | None = None
        self._fence_due = True
        self._open = False

    @property
    def fence_due(self) -> bool:
        """Whether the next transaction needs a fence first."""
        return self._fence_due

    @property
    def has_client(self) -> bool:
        """Whether a client is open."""
        return self._producer is not None

    def fence(self, again: Callable[[PipelineError], bool] = _never) -> None:
        """Step 1: open a new client, and fence every older producer of the id.

        Args:
            again: called with a temporary failure (`PASSING`); pauses, and returns whether to try again.

        Raises:
            FencedError, ConfigError, FatalTaskError: and temporary failures once `again` returns False.
        """
        while True:
            self.close()
            producer = self._producers.open(self._id)
            try:
                producer.init()
            except BaseException as error:
                producer.close()
                if not isinstance(error, PASSING) or not again(error):
                    raise
            else:
                self._producer, self._fence_due = producer, False
                return

    def begin(self) -> None:
        """Step 2. From here on a fence is due, until the transaction has ended quickly and cleanly."""
        producer = self._client()
        if self._fence_due:
            raise InvariantError(f"{self._id}: a transaction begins without the fence that is due")
        self._fence_due = True
        producer.begin()
        self._open = True

    def send(self, outputs: Sequence[Output]) -> None:
        """Step 3: enqueue records; plain tuples in the field order of Output are accepted."""
        self._client().send(outputs)

    def append(self, partition: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        """Step 3: enqueue records for this partition, in order."""
        self._client().append(partition, chunks, key)

    def flush(self) -> int:
        """Step 4: wait until every record is delivered. Returns the first appended offset; -1 if there is none."""
        return self._client().flush()

    def commit(self, timeout_s: float | None = None) -> float:
        """Step 6, timed separately. Returns its duration in seconds; `fence_due` then shows whether it was slow."""
        took_s = self._end(self._client().commit, timeout_s)
        self._fence_due = took_s >= self._slow_s
        return took_s

    def abort(self) -> PipelineError | None:
        """End the open transaction after a failure, so that readers need not wait for the fence, which is due.

        Returns:
            Why it failed, if it did: the fence ends the transaction as well.

        Raises:
            FencedError: a newer producer has the id.
        """
        if not self._open:
            return None
        try:
            self._end(self._client().abort, ABORT_TIMEOUT_S)
        except PASSING as error:
            return error
        return None

    def barrier(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The ends of `partitions` according to their leaders. After a slow abort, a fence is due.

        No committed reader ever sees the records. A crash leaves an open transaction, which the next fence aborts.
        """
        self.begin()
        producer = self._client()
        for partition in partitions:
            producer.append(partition, [BARRIER], BARRIER)
        producer.flush()
        ends = producer.appended_at()
        self._fence_due = self._end(producer.abort, None) >= self._slow_s
        return ends

    def close(self) -> None:
        """Release the client. An open transaction is left to the next fence."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None
        self._open = False
        self._fence_due = True

    def _end(self, end: Callable[[float | None], None], timeout_s: float | None) -> float:
        """Commit or abort. Returns the duration in seconds."""
        started_s = self._clock.monotonic_s()
        end(timeout_s)
        self._open = False
        return self._clock.monotonic_s() - started_s

    def _client(self) -> TransactionalClient:
        if self._producer is None:
            raise InvariantError(f"{self._id}: a transaction without a fence")
        return self._producer


def try_fence(transactional_id: str, producers: TransactionalClients) -> None:
    """Fence an id once, begin no transaction, and release the client: whether this user may write with the id.

    Raises:
        FencedError, ConfigError, FatalTaskError: and temporary failures (`PASSING`).
    """
    no_commits_ms = 0  # the back-off decides only whether a commit was slow
    with closing(TransactionEngine(transactional_id, producers, SystemClock(), no_commits_ms)) as engine:
        engine.fence()
