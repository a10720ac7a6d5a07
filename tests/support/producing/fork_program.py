"""Forks while a producer has events in flight and other threads hold its locks. The child sends its own events.

Prints the events that the clients of the parent and the child have written. test_forks.py runs it in a process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

from pipeline import App
from pipeline.config import ProducerSettings
from pipeline.errors import DeliveryError
from pipeline.producing import delivery as deliveries
from pipeline.producing import encoding
from pipeline.testing import TestProducer

LONG_S = 30.0

app = App("forks")
numbers = app.topic("numbers", key=str, value=int)


def child(producer: TestProducer, parents: deliveries.Delivery, parents_suffixes: Iterator[bytes]) -> None:
    """Check in the child that the producer works and sends none of the parent's events."""
    failure = parents.exception(LONG_S)
    assert isinstance(failure, DeliveryError), failure
    assert "only its parent knows" in failure.message
    assert parents.future().exception(LONG_S) is failure
    producer.clients._held = False  # for the child's new client; the old one belongs to the parent
    assert producer.send(numbers, "child", 2, id="c").result(LONG_S).offset == 0
    assert asyncio.run(producer.asend(numbers, "child", 3)).offset == 1
    producer.flush(LONG_S)
    producer.close(LONG_S)
    mine = producer.clients.opened[-1]
    assert len(producer.clients.opened) == 2, "the parent's client is used"
    assert mine.closed
    assert encoding._IdSuffixes.unused is not parents_suffixes, "both would make the same ids"
    assert not producer.clients.opened[0].closed, "the parent's client was released"
    sys.stdout.write(f"child {[event.value for event in producer.sent(numbers)]}\n")
    sys.stdout.flush()


def main() -> int:
    """Fork while events are in flight and locks are held."""
    producer = TestProducer(numbers, settings=ProducerSettings(max_records=10))
    producer.clients.hold()
    under_way = producer.send(numbers, "parent", 1, id="p")
    under_way.future()
    encoding.new_event_id()
    parents_suffixes = encoding._IdSuffixes.unused
    held, forked = threading.Event(), threading.Event()

    def hold_locks() -> None:
        with producer._outbox._lock, producer._outbox._closing, deliveries._Making.lock:
            held.set()
            forked.wait(LONG_S)

    holder = threading.Thread(target=hold_locks)
    holder.start()
    held.wait(LONG_S)
    pid = os.fork()
    if pid == 0:
        child(producer, under_way, parents_suffixes)
        os._exit(0)
    forked.set()
    holder.join()
    _, status = os.waitpid(pid, 0)
    producer.clients.release()
    producer.close(LONG_S)
    sys.stdout.write(f"parent {under_way.result()} {[event.value for event in producer.sent(numbers)]}\n")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
