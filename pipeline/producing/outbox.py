"""The events of a producer that are not delivered yet: `Outbox`, with its bound, its thread and its client.

    put --(room)--> waiting --(report)--> settled: the delivery is done, callbacks have run, the room is free

Guarantees: an event that `put` accepted is reported exactly once, as delivered or failed. Records of one partition are
written in the order of `put`. Waiting events stay within `max_records` and `max_bytes`.

The thread that serves the client collects the delivery reports of one poll, and then settles them together. Each report
needs the interpreter lock for a moment, and a busy sender would release it only every 5 ms (the switch interval). So
senders pause while reports arrive. Without that, the outbox of a tight loop of `put` is always full. Each pause costs
two switches of threads. So after many reports at once, the thread lets more reports gather before it serves the client
again, unless a caller waits for an outcome or for room.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from pipeline.config import ProducerSettings
from pipeline.core.records import Record
from pipeline.core.suggestions import counted
from pipeline.errors import DeliveryError, InvariantError, PipelineError, ProducerClosedError, QueueFullError
from pipeline.forks import call_in_children, never_release
from pipeline.ports import EventClient, EventClients, Logger, error_fields
from pipeline.producing.delivery import OnDelivery, Origin, RuntimeDelivery, named, text_of, undelivered
from pipeline.producing.encoding import Encoded

__all__ = ["Outbox"]

_SERVE_S = 0.1
_GIVE_WAY_S = 0.02
_MANY = 64  # after so many reports at once, more of them gather
_GATHER_S = 0.01
_AWAITED_S = 0.05  # so long after a call that waits, no reports gather
_PURGE_S = 5.0
_NAMED = 5  # so many undelivered events are named in an error
_REMEMBERED = 1000  # so many failures are kept until the caller reads them; beyond that they are counted


class _Report(msgspec.Struct, gc=False, eq=False):
    """The delivery report of an event. The client calls it with the outcome.

    Tens of thousands of events can wait at a time. Each further object that the garbage collector tracks for an event
    costs microseconds. So it does not track this one, which is not part of a lasting cycle, and the client's message,
    with a copy of the event, is not kept.
    """

    outbox: Outbox
    delivery: RuntimeDelivery
    error: Any = None

    def __call__(self, error: Any, record: Record) -> None:
        if error is None:
            self.delivery.place(record)
        else:
            self.error = error
        outbox = self.outbox
        outbox.serving = True
        outbox.reported.append(self)


class Outbox:
    """Accepts records from any thread. `forked` empties it; it then opens its own client at first use."""

    def __init__(self, clients: EventClients, settings: ProducerSettings, log: Logger) -> None:
        self._clients = clients
        self._max_records = settings.max_records
        self._max_bytes = settings.max_bytes
        self._max_block_s = settings.max_block_s
        self._log = log
        self._ended: PipelineError | None = None
        self._begin_empty()
        self._open()
        Origin.known[id(self)] = self
        call_in_children(self, Outbox.forked)

    def _begin_empty(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # reentrant: a garbage collection may call `abandon` anywhere
        self._room = threading.Condition(self._lock)
        self._closing = threading.Lock()
        self._waiting: dict[RuntimeDelivery, None] = {}  # by age
        self._bytes = 0
        self._sequence = 0
        self.reported: list[_Report] = []
        self.serving = False  # reports arrive
        self._settling = False
        self._awaited = threading.Event()
        self._awaited_until_s = 0.0
        self._failed: dict[RuntimeDelivery, None] = {}
        self._failed_beyond = 0
        self._when_room: list[Callable[[], object]] = []
        self._stop = False
        self._client: EventClient | None = None
        self._thread: threading.Thread | None = None

    def _open(self) -> EventClient:
        client = self._client = self._clients.open()
        self._thread = threading.Thread(
            target=self._run, args=(client,), daemon=True, name="pipeline-producer"
        )
        self._thread.start()
        return client

    def put(self, event: Encoded, on_delivery: OnDelivery | None, *, wait: bool) -> RuntimeDelivery | None:
        """Accept an event. Returns None if there is no room and `wait` is false.

        Raises QueueFullError after `max_block_s`, ProducerClosedError, and the errors of the client's `enqueue`.
        """
        delivery = RuntimeDelivery(
            event.topic, event.key, event.id, size=event.size, on_delivery=on_delivery, origin=id(self)
        )
        report = _Report(self, delivery)
        if not wait:
            self.hurry()
        elif self.serving:
            self._give_way()
        deadline: float | None = None
        with self._lock:
            while not self._enqueue(event, delivery, report):
                if not wait:
                    return None
                deadline = self._wait_for_room(deadline, event)
        return delivery

    def _enqueue(self, event: Encoded, delivery: RuntimeDelivery, report: _Report) -> bool:
        """Returns False if there is no room. `_lock` is held."""
        if self._ended is not None:
            raise self._ended
        waiting = self._waiting
        size = self._bytes + event.size
        if waiting and (size > self._max_bytes or len(waiting) >= self._max_records):
            return False
        client = self._client or self._open()
        if not client.enqueue(event.topic, event.key, event.value, event.timestamp_ms, event.headers, report):
            return False
        self._sequence = delivery.sequence = self._sequence + 1
        waiting[delivery] = None
        self._bytes = size
        return True

    def call_when_room(self, call: Callable[[], object]) -> None:
        """Call `call` once: now if nothing waits, otherwise on the producer's thread as soon as there may be room."""
        with self._room:
            if self._waiting:
                self._when_room.append(call)
                return
        call()

    def remember(self, delivery: RuntimeDelivery) -> None:
        """Report this failure at the next `flush`, unless the caller reads its result before."""
        with self._lock:
            if len(self._failed) < _REMEMBERED:
                self._failed[delivery] = None
            else:
                self._failed_beyond += 1

    def flush(self, timeout_s: float | None) -> None:
        """Wait until all events that were put so far are settled.

        Raises DeliveryError for events that are not settled in time, and for failures that the caller has not read.
        """
        self._refuse_own_thread("flush")
        with self._room:
            if self._ended is not None and not self._waiting:
                raise self._ended
            settled = self._wait_until_settled(self._sequence, timeout_s)
        if not settled:
            raise self._undelivered(f"not delivered after {timeout_s} s")
        self._raise_failed()

    def close(self, timeout_s: float | None) -> None:
        """Like `flush`, and close the client. Events that are not settled in time are dropped; the error names them.

        1. Accept no more events.
        2. Wait until all are settled.
        3. Drop the remaining events. Each is reported as failed.
        4. End the thread and close the client.
        """
        self._refuse_own_thread("close")
        with self._closing:
            if self._stop or self._pid != os.getpid():
                return
            with self._room:
                self._ended = self._ended or ProducerClosedError("the producer is closed")  # 1
                self._room.notify_all()
                settled = self._wait_until_settled(self._sequence, timeout_s)  # 2
                problem = None if settled else self._undelivered(f"given up at close, after {timeout_s} s")
                if not settled and self._client is not None:
                    self._client.purge()  # 3
                    self._wait_until_settled(self._sequence, _PURGE_S)
            self._stop = True  # 4
            self.hurry()
            if self._thread is not None and self._client is not None:
                self._client.purge()  # of nothing: it ends a wait for reports
                self._thread.join()
        if problem is not None:
            raise problem
        self._raise_failed()

    def abandon(self) -> None:
        """The producer was garbage-collected without `close`: log the lost events. The thread ends by itself."""
        if self._pid != os.getpid() or self._stop:
            return
        with self._room:
            left = bool(self._waiting)
            lost = self._undelivered("not delivered when the producer was dropped without close()")
            self._ended = self._ended or ProducerClosedError("the producer was dropped")
        self._stop = True
        self.hurry()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PURGE_S)
        if left:
            self._log.error("events_lost", count=lost.count, **error_fields(lost))
            warnings.warn(str(lost), RuntimeWarning, stacklevel=2)

    def forked(self) -> None:
        """In a forked child: start empty. The parent delivers the events that it accepted."""
        if self._client is not None:
            never_release(self._client)
        theirs = self._waiting
        self._begin_empty()
        for delivery in theirs:
            delivery.disown(
                DeliveryError(
                    f"{named(delivery)} was sent before this process was forked: only its parent knows the outcome"
                )
            )

    # The serving thread

    def _run(self, client: EventClient) -> None:
        gathered = False
        while not self._stop:
            client.serve(0 if gathered else _SERVE_S)
            gathered = self._settle(client) >= _MANY and self._gather()
            if gathered:
                self.serving = (
                    True  # already here, so that senders pause while this thread waits for the lock
                )
            if client.fatal is not None and self._ended is not client.fatal:
                with self._room:
                    self._ended = client.fatal
                client.purge()
        client.purge()
        client.serve(0)
        self._settle(client)
        client.close()

    def _gather(self) -> bool:
        """Let reports gather. Returns False, earlier, if a caller waits."""
        self._awaited.clear()  # before the test: a call of `hurry` after it ends the wait
        return time.monotonic() >= self._awaited_until_s and not self._awaited.wait(_GATHER_S)

    def hurry(self) -> None:
        """A caller waits: serve the client without a break, for a short time."""
        self._awaited_until_s = time.monotonic() + _AWAITED_S
        if not self._awaited.is_set():
            self._awaited.set()

    def _settle(self, client: EventClient) -> int:
        """1. Free the room. 2. Complete the deliveries. 3. Wake the threads that wait for all events.

        Returns the number of reports.
        """
        reported, self.reported = self.reported, []
        if not reported:
            if self.serving:
                with self._room:
                    self.serving = False
                    self._room.notify_all()
            return 0
        size = 0
        with self._room:  # 1
            waiting = self._waiting
            for report in reported:
                delivery = report.delivery
                del waiting[delivery]
                size += delivery.size
            self._bytes -= size
            self.serving, self._settling = False, True
            calls, self._when_room = self._when_room, []
            self._room.notify_all()
        for call in calls:
            call()
        for report in reported:  # 2
            delivery = report.delivery
            if report.error is None and delivery.on_delivery is None:
                delivery.finish()
            else:
                self._finish(delivery, report.error, client)
        with self._room:  # 3
            self._settling = False
            self._room.notify_all()
        return len(reported)

    def _finish(self, delivery: RuntimeDelivery, error: Any, client: EventClient) -> None:
        if error is None:
            delivery.finish()
        else:
            failure = client.fatal or client.failure(error, named(delivery))
            if delivery.on_delivery is None:
                self.remember(delivery)
            delivery.finish(failure)
        if delivery.on_delivery is not None:
            try:
                delivery.on_delivery(delivery)
            except Exception as raised:  # noqa: BLE001 - a caller's function must not end the deliveries of others
                with suppress(Exception):  # and neither must a log that the program has closed
                    self._log.error(
                        "on_delivery_failed",
                        event_id=str(delivery.id),
                        error=type(raised).__name__,
                        message=str(raised),
                    )

    # Waiting; `_room` is held

    def _give_way(self) -> None:
        with self._room:
            if self.serving and threading.current_thread() is not self._thread:
                self._room.wait(_GIVE_WAY_S)

    def _wait_for_room(self, deadline: float | None, event: Encoded) -> float:
        now = time.monotonic()
        deadline = now + self._max_block_s if deadline is None else deadline
        # A callback that sends runs on the serving thread, so no other thread would make room.
        own = threading.current_thread() is self._thread
        if now >= deadline or own:
            raise self.full(event, waited_s=0.0 if own else self._max_block_s)
        self.hurry()
        self._room.wait(deadline - now)
        return deadline

    def full(self, event: Encoded, waited_s: float) -> QueueFullError:
        """Why an event was not taken."""
        return QueueFullError(
            f"event {text_of(event.id)} for topic {event.topic} was not sent: {counted(len(self._waiting), 'event')} "
            "of "
            f"{self._bytes} bytes {'waits' if len(self._waiting) == 1 else 'wait'} for delivery, and none became "
            f"room in {waited_s:g} s",
            hint="Kafka is unreachable or slower than the producer: send less, or raise max_records and max_bytes",
        )

    def _wait_until_settled(self, sequence: int, timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._settling or (self._waiting and next(iter(self._waiting)).sequence <= sequence):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._thread is not None and not self._thread.is_alive():
                raise InvariantError("the producer's thread has ended while events wait")
            self.hurry()
            self._room.wait(1.0 if left is None else min(left, 1.0))
        return True

    def _refuse_own_thread(self, call: str) -> None:
        if threading.current_thread() is self._thread:
            raise ProducerClosedError(
                f"{call} inside on_delivery would wait for itself", hint="call it on another thread"
            )

    # Errors

    def _undelivered(self, what: str) -> DeliveryError:
        with self._room:
            return undelivered(len(self._waiting), list(islice(self._waiting, _NAMED)), what)

    def _raise_failed(self) -> None:
        """Raise once for the failures that the caller has not read."""
        with self._room:
            failed = [delivery for delivery in self._failed if not delivery.seen]
            count = len(failed) + self._failed_beyond
            self._failed.clear()
            self._failed_beyond = 0
        if count:
            reason = failed[0].exception() if failed else None
            raise undelivered(count, failed[:_NAMED], "not delivered", reason)
