"""The port to a producer outside of transactions: `EventClient`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.errors import PipelineError

__all__ = ["EventClient", "EventClients", "Report"]

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
