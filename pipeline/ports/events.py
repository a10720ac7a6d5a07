"""Sending outside of transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.errors import PipelineError

__all__ = ["EventClient", "EventClients", "Report"]

Report = Callable[[Any, Any], None]
"""Told once what became of a record: (an error for `EventClient.failure`, or None; the `Record`, where it is now)."""


class EventClient(Protocol):
    """An idempotent client outside of transactions. Any thread may enqueue; one serves."""

    @property
    def fatal(self) -> PipelineError | None:
        """Why the client can do nothing more, ever; None while it can."""
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
        """Take a record, without waiting; False when there is no room. `timestamp_ms` 0 is now.

        Records of one partition are written in the order in which they were taken. Raises what `fatal` gives,
        ConfigError, and ValueError for a record that no topic could take.
        """
        ...

    def serve(self, timeout_s: float) -> None:
        """Run the reports of what is decided; wait up to `timeout_s` for the first. Never raises."""
        ...

    def failure(self, error: Any, what: str) -> PipelineError:
        """What a reported error means: ConfigError, or DeliveryError. `what` names the event."""
        ...

    def purge(self) -> None:
        """Give up whatever waits or is under way: `serve` reports it as failed. Never raises."""
        ...

    def close(self) -> None:
        """Release the client without waiting. Never raises."""
        ...


class EventClients(Protocol):
    """Opens clients for events. May raise ConfigError."""

    def open(self) -> EventClient: ...
