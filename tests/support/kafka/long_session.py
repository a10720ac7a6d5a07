"""`pipeline` with a long session time-out of Kafka, for tests of what does not wait for it."""

from __future__ import annotations

from pipeline.cli.entry import main
from pipeline.kafka import clients

__all__ = ["SESSION_S"]

SESSION_S = 55.0

if __name__ == "__main__":
    clients.SESSION_TIMEOUT_MS = clients.STUCK_TIMEOUT_MS = round(SESSION_S * 1000)
    main()
