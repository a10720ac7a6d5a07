"""Transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.core.names import TopicPartition
from pipeline.core.records import Output

__all__ = ["TransactionalClient", "TransactionalClients"]


class TransactionalClient(Protocol):
    """One transactional producer under one static transactional id. One thread at a time.

    Calls, in order: `init` once, then any number of: `begin`, `send`*, `append`, `flush`, `commit` (or
    `abort` instead of the rest). Every call may raise FencedError (a newer owner), AbortableError (the
    transaction must be aborted; RefusedError: for what is in an output), UnknownOutcomeError (renew: close, open a
    new one, `init`, ask the journal), UnreachableError (only `init`: nothing happened, call again).
    """

    def init(self) -> None:
        """Fence every older producer of this id and end its open transaction."""
        ...

    def begin(self) -> None: ...

    def send(self, outputs: Sequence[Output]) -> None:
        """Enqueue all outputs; plain tuples in the order of Output are as good, and cheaper to make.

        A client that takes fewer than it was given must not pass for success.
        """
        ...

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        """Enqueue an entry's chunks, in order, to exactly this partition."""
        ...

    def flush(self) -> int:
        """Wait until every record is delivered; the offset of the first appended chunk."""
        ...

    def appended_at(self) -> Mapping[TopicPartition, int]:
        """After `flush`: the offset of the first chunk in each partition that was appended to."""
        ...

    def commit(self, timeout_s: float | None = None) -> None:
        """Commit; without `timeout_s`, for as long as it takes.

        After it UnknownOutcomeError: the request is on its way or not, and the producer only good for `close`.
        """
        ...

    def abort(self, timeout_s: float | None = None) -> None:
        """Abort; without `timeout_s`, for as long as it takes. After it UnreachableError: the successor does it."""
        ...

    def close(self) -> None:
        """Release the client without waiting for anything undelivered. Never raises."""
        ...


class TransactionalClients(Protocol):
    """Opens transactional producers."""

    def open(self, transactional_id: str) -> TransactionalClient: ...

    def learn(self, message_bytes: Mapping[str, int]) -> None:
        """Keep batches within these values of max.message.bytes, by topic, in producers opened from now on."""
        ...
