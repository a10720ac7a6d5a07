"""`TransactionalSender`: batches of events that readers of committed records see completely or not at all.

    with producer.transaction() as batch:
        batch.send(orders, "k", Order(5), id="order-5")
        batch.send(stock, "shoe", Taken(1), id="order-5")

One batch, numbered as in `transaction`:

| step | what |
| --- | --- |
| 1 renew | open a new client and fence; only at first, and after a failed or slow transaction |
| 2 begin | local to the client |
| 3 send | the events, as the caller sends them |
| 4 flush | every event is delivered |
| 5 commit | the commit point; its duration is measured |

The steps are those of `pipeline/transactions/engine.py`, whose table shows what a crash leaves: an open transaction,
which the next fence or its time-out aborts, or a decided one, whose outcome the caller does not know.

A batch is never sent again automatically. The caller sends it again with the same ids, and readers that recognize ids
see each event once.

Each step is bounded: 30 s for the fence, `transaction_timeout_ms` for the flush, `commit_timeout_s` for the commit.
After that, the outcome of the commit is unknown, and the next renewal settles it. Before Kafka answers the fence, it
completes a commit that it has begun, or aborts. After the fence, it refuses all requests of the old client.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.api.declarations import Topic
from pipeline.config import ProducerSettings
from pipeline.core.names import producer_transactional_id
from pipeline.errors import (
    AbortableError,
    FencedError,
    PipelineError,
    ProducerClosedError,
    QueueFullError,
    UnknownOutcomeError,
)
from pipeline.forks import call_in_children, never_release
from pipeline.ports import Output, SystemClock, TransactionalClients
from pipeline.producing.encoding import Encoder
from pipeline.transactions.engine import TransactionEngine

__all__ = ["Transaction", "TransactionalSender"]

K = TypeVar("K")
V = TypeVar("V")

_AT_A_TIME = 500
RETRY_BACKOFF_MS = 500


class Transaction:
    """An open transaction: the target of `with producer.transaction() as ...`.

    Valid inside the block, for the thread that opened it. An event that is refused fails the whole transaction, even
    if the caller catches the exception: without that event, the transaction would be committed in part.
    """

    if TYPE_CHECKING:  # set by RuntimeTransaction
        _count: int
        _encoder: Encoder
        _open: bool
        _outputs: list[Any]
        _refused: BaseException | None
        _send: Callable[[Sequence[Output]], None]

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        id: str | bytes | None = None,  # noqa: A002 - what everybody calls it
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> bytes:
        """Add an event to the transaction.

        Give ids of your own: a transaction whose outcome is unknown can only be sent again under the same ids.

        Args:
            topic: What `app.topic(...)` returned, of any app.
            key: Of the topic's key type.
            value: Of the topic's value type.
            id: The event id, a str (as UTF-8) or bytes, not empty. Default: a new UUIDv7.
            headers: Pairs of a name and bytes, in order.
            timestamp_ms: Milliseconds since the epoch, above 0. Default: now.

        Returns:
            The event id.

        Raises:
            TypeError: The key, the value, the id or a header has a wrong type.
            ValueError: The key or the value cannot be encoded, or the event is over `max_event_bytes`.
            OverflowError: A number is too large for its encoding.
            ConfigError: The topic is not a topic of an app.
            ProducerClosedError: The block has ended.
            AbortableError: An earlier event of the transaction was refused.
            FencedError: Another producer with the same transactional id was opened.

        Example:
            ```python
            with producer.transaction() as transaction:
                transaction.send(orders, "k", Order(5), id="order-5")
                transaction.send(stock, "shoe", Taken(1), id="order-5")
            ```
        """
        if not self._open:
            raise ProducerClosedError("the transaction is over", hint="send inside its with statement")
        self._check()
        try:
            event = self._encoder.encode(topic, key, value, id, headers, timestamp_ms)
            when = event.timestamp_ms or time.time_ns() // 1_000_000
            self._outputs.append((event.topic, event.key, event.value, when, event.headers))
            self._count += 1
            if len(self._outputs) >= _AT_A_TIME:
                self._pass_on()
        except BaseException as error:
            self._refused = error
            raise
        return event.id

    def _pass_on(self) -> None:
        """Pass the collected events to the client."""
        outputs, self._outputs = self._outputs, []
        if outputs:
            self._send(outputs)

    def _check(self) -> None:
        """Raise AbortableError if an event was refused."""
        if self._refused is not None:
            reason = self._refused.message if isinstance(self._refused, PipelineError) else self._refused
            raise AbortableError(
                f"the batch has failed: event {self._count + 1} or one before it was refused ({reason}): nothing "
                "of the transaction was written",
                hint="let the exception leave the block, or check events before the block sends them",
            ) from self._refused


class RuntimeTransaction(Transaction):
    """The producer's view of a transaction."""

    def __init__(self, send: Callable[[Sequence[Output]], None], encoder: Encoder) -> None:
        self._send = send
        self._encoder = encoder
        self._outputs = []
        self._open = True
        self._refused = None
        self._count = 0

    def complete(self) -> None:
        """Pass the remaining events to the client. Raises AbortableError if an event was refused."""
        self._check()
        self._pass_on()

    def end(self) -> None:
        """Accept no more events."""
        self._open = False


class TransactionalSender:
    """Writes transactions under one id, one at a time. A newer producer with this id fences this one."""

    def __init__(
        self, producers: TransactionalClients, transactional_id: str, settings: ProducerSettings
    ) -> None:
        self._producers = producers
        self._id = producer_transactional_id(transactional_id)
        self._encoder = Encoder(settings.max_event_bytes)
        self._max_block_s = settings.max_block_s
        self._commit_timeout_s = settings.commit_timeout_s
        self._begin_empty()
        self._ended: PipelineError | None = None
        call_in_children(self, TransactionalSender._forked)

    def _begin_empty(self) -> None:
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._engine = TransactionEngine(self._id, self._producers, SystemClock(), RETRY_BACKOFF_MS)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a transaction, and commit it at the end of the `with` block: all of its events, or none.

        Threads take turns. An exception in the block aborts the transaction and is raised to the caller. Otherwise the
        end of the block commits.

        Returns:
            A context manager that gives the `Transaction`.

        Raises:
            AbortableError: Nothing was written. Run the block again.
            UnknownOutcomeError: Everything was written or nothing, for example because Kafka did not answer within
                `commit_timeout_s`. Run the block again with the same ids. Or run an empty block, which settles the
                outcome, and then look whether the events exist.
            FencedError: Another producer with this id was opened, or the transaction took longer than
                `transaction_timeout_ms`. This producer can no longer be used.
            UnreachableError: Kafka did not answer when the block began. Nothing was written.
            QueueFullError: Other threads' transactions took longer than `max_block_s`. Nothing was written.
            ProducerClosedError: The producer is closed, or a transaction is open on this thread.

        Example:
            ```python
            with producer.transaction() as transaction:
                transaction.send(orders, "k", Order(5), id="order-5")
            ```
        """
        turn = self._take_turn()
        try:
            self._refuse_after_end()
            if self._engine.fence_due:
                self._before_commit(self._engine.fence)  # 1
            batch = RuntimeTransaction(self._send, self._encoder)
            self._before_commit(self._engine.begin)  # 2
            try:
                yield batch  # 3
                batch.complete()
                self._before_commit(self._engine.flush)  # 4
            except BaseException:
                self._abort()
                raise
            finally:
                batch.end()
            self._commit()  # 5
        finally:
            if self._ended is not None:
                self._engine.close()
            self._owner = None
            turn.release()

    def close(self) -> None:
        """Close the producer. Never raises, and may be called again.

        It waits for a transaction of another thread, up to `max_block_s`. A transaction that takes longer, or that is
        open on this thread, still ends as usual; its end releases the client.

        Example:
            ```python
            producer.close()
            ```
        """
        if self._pid != os.getpid():
            return
        self._ended = self._ended or ProducerClosedError("the producer is closed")
        if self._owner != threading.get_ident() and self._turn.acquire(timeout=self._max_block_s):
            try:
                self._engine.close()
            finally:
                self._turn.release()

    def _forked(self) -> None:
        """In a forked child: end this producer. A client with the same id would fence the parent's."""
        never_release(self._engine)
        self._begin_empty()
        self._ended = ProducerClosedError(
            f"the transactional producer {self._id} was made before this process was forked",
            hint="make one after the fork, with an id of its own",
        )

    def _take_turn(self) -> threading.Lock:
        """Take the lock, and return it, because a child that is forked meanwhile replaces it.

        Raises ProducerClosedError, QueueFullError.
        """
        if self._pid != os.getpid():
            self._forked()
        if self._owner == threading.get_ident():
            raise ProducerClosedError("a transaction is open on this thread already", hint="end it first")
        if not self._turn.acquire(timeout=self._max_block_s):
            raise QueueFullError(
                f"another transaction of {self._id} has been open for {self._max_block_s:g} s",
                hint="keep transactions short, or give each thread a producer with an id of its own",
            )
        self._owner = threading.get_ident()
        return self._turn

    def _refuse_after_end(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _send(self, outputs: Sequence[Output]) -> None:
        """Step 3."""
        self._before_commit(partial(self._engine.send, outputs))

    def _before_commit(self, call: Callable[[], object]) -> None:
        """Make a call before the commit. Its errors say that nothing was written."""
        if not self._engine.has_client:
            self._refuse_after_end()  # in a child that was forked inside the block
        try:
            call()
        except FencedError as error:
            raise self._fenced(error, "nothing of the transaction was written") from error
        except UnknownOutcomeError as error:
            raise AbortableError(
                f"{error.message}: nothing of the transaction was written", hint="run it again"
            ) from error
        except AbortableError as error:
            raise AbortableError(
                f"{error.message}: nothing of the transaction was written", hint=error.hint or "run it again"
            ) from error

    def _abort(self) -> None:
        """Abort. If this fails, the next renewal or Kafka's time-out aborts the transaction."""
        try:
            self._engine.abort()
        except FencedError as error:
            self._fenced(error, "nothing of the transaction was written")

    def _commit(self) -> None:
        """Step 5. The caller must settle an unknown outcome, because this package does not read the events."""
        try:
            self._engine.commit(self._commit_timeout_s)
        except AbortableError as error:
            self._abort()
            raise AbortableError(
                f"{error.message}: nothing of the transaction was written", hint=error.hint or "run it again"
            ) from error
        except FencedError as error:
            # An answer may have been lost, and the request repeated, before another process came with the same id.
            raise self._fenced(error, _UNKNOWN) from error
        except UnknownOutcomeError as error:
            raise UnknownOutcomeError(f"{error.message}: {_UNKNOWN}", hint=_RESOLVE) from error

    def _fenced(self, error: FencedError, outcome: str) -> FencedError:
        fenced = FencedError(
            f"{error.message}: {outcome}",
            hint="another instance uses this transactional id, or the transaction took longer than "
            "transaction_timeout_ms of the producer; a new producer with this id ends the other one",
        )
        self._ended = fenced
        return fenced


_UNKNOWN = "the transaction was written whole or not at all, and Kafka did not say which"
_RESOLVE = (
    "run it again under the same event ids: a reader that recognises ids sees each event once; or run an empty "
    "transaction, after which the events are there or never will be, and look: pipeline consume TOPIC"
)
