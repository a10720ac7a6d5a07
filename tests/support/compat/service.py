"""A service that sends batches in transactions, under an id that it keeps.

    python -m tests.support.compat.service BEGIN COUNT     commits a batch of COUNT events, numbered from BEGIN
    python -m tests.support.compat.service BEGIN COUNT -   sends one and never ends the transaction

$PIPELINE_KAFKA names the brokers.
"""

from __future__ import annotations

import sys
import threading

from pipeline import App, TransactionalProducer

__all__ = ["SERVICE", "TOPIC"]

SERVICE = "recorded-service"
TOPIC = "service-events"


def main() -> None:
    """Send one batch."""
    begin, count = map(int, sys.argv[1:3])
    events = App("service").topic(TOPIC, key=str, value=int)
    with TransactionalProducer(SERVICE) as producer, producer.transaction() as batch:
        for n in range(begin, begin + count):
            batch.send(events, f"key-{n % 7}", n, id=f"event-{n}")
        if sys.argv[3:]:
            threading.Event().wait()  # until the process is killed


if __name__ == "__main__":
    main()
