"""The ports that write records: `TransactionalClient`, and `EventClient` outside of transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pipeline.core.names import TopicPartition
from pipeline.core.records import Output
from pipeline.errors import PipelineError

__all__ = ["EventClient", "EventClients", "Report", "TransactionalClient", "TransactionalClients"]


class TransactionalClient(Protocol):
    """One transactional producer under one static transactional id. One thread at a time.

    Call `init` once. Then, for each transaction, call `begin`, `send` any number of times, `append`, `flush` and
    `commit`. `abort` may replace the remaining calls.

    Every call may raise:
        FencedError: a newer owner has this id.
        AbortableError: the transaction must be aborted. RefusedError: because of the content of an output.
        UnknownOutcomeError: renew the producer: close it, open a new one, call `init`, and read the journal.
        UnreachableError: only from `init`. Nothing happened; call it again.
    """

    def init(self) -> None:
        """Fence all earlier producers with this id and end their open transaction."""
        ...

    def begin(self) -> None: ...

    def send(self, outputs: Sequence[Output]) -> None:
        """Enqueue all outputs. Plain tuples in the field order of Output are accepted, because they are cheaper.

        Returns only if the client accepted every record.
        """
        ...

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        """Enqueue the chunks of an entry, in order, for this partition."""
        ...

    def flush(self) -> int:
        """Wait until every record is delivered. Returns the offset of the first appended chunk."""
        ...

    def appended_at(self) -> Mapping[TopicPartition, int]:
        """After `flush`: the offset of the first appended chunk, by partition."""
        ...

    def commit(self, timeout_s: float | None = None) -> None:
        """Commit. Without `timeout_s`, waits without a limit.

        After `timeout_s`, raises UnknownOutcomeError: the request may have been sent. Only `close` is then allowed.
        """
        ...

    def abort(self, timeout_s: float | None = None) -> None:
        """Abort. Without `timeout_s`, waits without a limit.

        After `timeout_s`, raises UnreachableError; the successor's `init` aborts the transaction.
        """
        ...

    def close(self) -> None:
        """Release the client without waiting for undelivered records. Never raises."""
        ...


class TransactionalClients(Protocol):
    """Opens transactional producers."""

    def open(self, transactional_id: str) -> TransactionalClient: ...

    def learn(self, message_bytes: Mapping[str, int]) -> None:
        """Update `max.message.bytes` by topic. Producers opened from now on keep their batches within it."""
        ...


Report = Callable[[Any, Any], None]
"""Called once per record: (None, or an error for `EventClient.failure`; the `Record` with its offset)."""


class EventClient(Protocol):
    """An idempotent producer without transactions. Any thread may call `enqueue`; one thread calls `serve`."""

    @property
    def fatal(self) -> PipelineError | None:
        """The error after which the client can no longer be used; None if there is none."""
        ...

    def enqueue(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        """Enqueue a record without waiting; False if the queue is full. `timestamp_ms` 0 is the current time.

        Records of one partition are written in the order of the calls. Raises the error of `fatal`, ConfigError, and
        ValueError for a record that no topic would accept.
        """
        ...

    def serve(self, timeout_s: float) -> None:
        """Run the delivery reports that are due; wait up to `timeout_s` for the first. Never raises."""
        ...

    def failure(self, error: Any, what: str) -> PipelineError:
        """The exception for a reported error: ConfigError or DeliveryError. `what` names the event."""
        ...

    def purge(self) -> None:
        """Discard all records in the queue or in flight; `serve` reports them as failed. Never raises."""
        ...

    def close(self) -> None:
        """Release the client without waiting. Never raises."""
        ...


class EventClients(Protocol):
    """Opens event clients. May raise ConfigError."""

    def open(self) -> EventClient: ...
