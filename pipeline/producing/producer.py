"""`EventProducer`: sends typed events from any thread or coroutine to topics, through any `EventClients`."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from pipeline.api.declarations import Topic
from pipeline.config import ProducerSettings
from pipeline.errors import InvariantError
from pipeline.ports import EventClients, Logger
from pipeline.producing.delivery import Delivered, Delivery, OnDelivery, RuntimeDelivery
from pipeline.producing.encoding import Encoded, Encoder
from pipeline.producing.outbox import Outbox

__all__ = ["EventProducer", "Loop"]

K = TypeVar("K")
V = TypeVar("V")


class Loop:
    """The sender of the running event loop. It never waits on the loop's thread.

    Coroutines take turns in the order in which they called `send`, also while there is no room. So their events are
    accepted in that order. One call on the loop's thread delivers the outcomes of many events.
    """

    def __init__(self, outbox: Outbox, max_block_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox
        self._max_block_s = max_block_s
        self._turn = asyncio.Lock()  # fair
        self._done: list[tuple[asyncio.Future[Delivered], RuntimeDelivery]] = []
        self._scheduled = False

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    async def send(self, event: Encoded) -> Delivered:
        """Wait for room, then for the delivery. A cancellation does not recall an event that was accepted."""
        outcome: asyncio.Future[Delivered] = self._loop.create_future()
        report = partial(self._report, outcome)
        async with self._turn:
            delivery = self._outbox.put(event, report, wait=False)
            if delivery is None:
                try:
                    async with asyncio.timeout(self._max_block_s):
                        while self._outbox.put(event, report, wait=False) is None:
                            await self._room()
                except TimeoutError:
                    raise self._outbox.full(event, self._max_block_s) from None
        return await outcome

    async def _room(self) -> None:
        room: asyncio.Future[None] = self._loop.create_future()
        self._outbox.call_when_room(partial(self._call, partial(_set, room)))
        await room

    def _report(self, outcome: asyncio.Future[Delivered], delivery: RuntimeDelivery) -> None:
        """Note an outcome. Runs on the producer's thread."""
        self._done.append((outcome, delivery))
        if not self._scheduled:
            self._scheduled = True
            if not self._call(self._resolve):
                self._forget()

    def _resolve(self) -> None:
        """Set the outcomes. Runs on the loop's thread. Later outcomes schedule it again."""
        self._scheduled = False
        done, self._done = self._done, []
        for outcome, delivery in done:
            failure = delivery.exception()
            if outcome.cancelled():
                self._nobody_waits(delivery)
            elif failure is not None:
                outcome.set_exception(failure)
            else:
                outcome.set_result(delivery.result())

    def _forget(self) -> None:
        """The loop is closed, so no coroutine reads the outcomes."""
        self._scheduled = False
        done, self._done = self._done, []
        for _, delivery in done:
            self._nobody_waits(delivery)

    def _nobody_waits(self, delivery: RuntimeDelivery) -> None:
        if delivery.exception() is not None:
            delivery.seen = False
            self._outbox.remember(delivery)

    def _call(self, function: Callable[[], object]) -> bool:
        """Schedule a call on the loop. Returns False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class EventProducer:
    """Sends events; threads and coroutines may share it. Close it, or use it in a `with` or `async with`."""

    def __init__(self, clients: EventClients, settings: ProducerSettings, log: Logger) -> None:
        self._settings = settings
        self._encoder = Encoder(settings.max_event_bytes)
        self._outbox = Outbox(clients, settings, log)
        self._loops: dict[asyncio.AbstractEventLoop, Loop] = {}
        # Also at the end of the program, before the modules it needs are gone.
        self._dropped = weakref.finalize(self, self._outbox.abandon)

    def send(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        id: str | bytes | None = None,  # noqa: A002 - what everybody calls it
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> Delivery:
        """Send an event, without waiting for its delivery.

        It waits up to `max_block_s` while the events that wait for delivery are at `max_records` or `max_bytes`.

        Args:
            topic: What `app.topic(...)` returned, of any app.
            key: Of the topic's key type.
            value: Of the topic's value type.
            id: The event id, by which readers recognise duplicates: a str (as UTF-8) or bytes, not empty. Give one of
                your own, so that an event that is sent again is recognised. Default: a new UUIDv7.
            headers: Pairs of a name and bytes, in order.
            timestamp_ms: Milliseconds since the epoch, above 0. Default: now.
            on_delivery: Called with the Delivery when the outcome is known, on the producer's thread: it must not
                block. `flush` does not raise a failure that was given to it.

        Returns:
            The event's Delivery, which tells the outcome.

        Raises:
            TypeError: The key, the value, the id or a header has a wrong type. Nothing was sent, as in all cases below.
            ValueError: The key or the value cannot be encoded, or the event is over `max_event_bytes`.
            OverflowError: A number is too large for its encoding.
            ConfigError: The topic is not a topic of an app.
            QueueFullError: No room became free within `max_block_s`.
            ProducerClosedError: The producer is closed.

        Example:
            ```python
            producer.send(orders, "customer-7", Order(5), id="order-5")
            ```
        """
        event = self._encoder.encode(topic, key, value, id, headers, timestamp_ms)
        delivery = self._outbox.put(event, on_delivery, wait=True)
        if delivery is None:
            raise InvariantError("an event was neither taken nor refused")
        return delivery

    async def asend(
        self,
        topic: Topic[K, V],
        key: K,
        value: V,
        *,
        id: str | bytes | None = None,  # noqa: A002 - as above
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> Delivered:
        """Send an event and wait until it is delivered, without blocking the event loop.

        Events are sent in the order of the calls, however many calls are in progress. Cancelling the call ends the
        waiting; the event is still sent.

        Args:
            topic: What `app.topic(...)` returned, of any app.
            key: Of the topic's key type.
            value: Of the topic's value type.
            id: The event id, by which readers recognise duplicates: a str (as UTF-8) or bytes, not empty. Give one of
                your own, so that an event that is sent again is recognised. Default: a new UUIDv7.
            headers: Pairs of a name and bytes, in order.
            timestamp_ms: Milliseconds since the epoch, above 0. Default: now.

        Returns:
            Where the event was written.

        Raises:
            TypeError: As `send`.
            ValueError: As `send`.
            OverflowError: As `send`.
            ConfigError: As `send`; or the topic does not exist, may not be written, or refuses the event's size.
            QueueFullError: As `send`.
            ProducerClosedError: As `send`.
            DeliveryError: The event was not delivered, or that is not known. Send it again under the same id.

        Example:
            ```python
            delivered = await producer.asend(orders, "customer-7", Order(5), id="order-5")
            ```
        """
        event = self._encoder.encode(topic, key, value, id, headers, timestamp_ms)
        return await self._loop().send(event)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every event that was sent before is delivered or has failed.

        Args:
            timeout_s: Seconds to wait. Default: until every outcome is known, at most `delivery_timeout_s`.

        Raises:
            DeliveryError: Some events were not delivered within `timeout_s` (they are still tried), or have failed
                since the last flush and their outcome was not asked for. The error has their number and the first of
                them.

        Example:
            ```python
            producer.flush()
            ```
        """
        self._outbox.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, and close the producer. Events that are not delivered within `timeout_s` are no longer tried.

        Args:
            timeout_s: As for `flush`.

        Raises:
            DeliveryError: As for `flush`.

        Example:
            ```python
            producer.close(timeout_s=10)
            ```
        """
        self._outbox.close(timeout_s)
        self._dropped.detach()

    async def aflush(self, timeout_s: float | None = None) -> None:
        """Flush without blocking the event loop.

        Args:
            timeout_s: As for `flush`.

        Raises:
            DeliveryError: As for `flush`.

        Example:
            ```python
            await producer.aflush()
            ```
        """
        await asyncio.to_thread(self.flush, timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> None:
        """Flush and close the producer without blocking the event loop.

        Args:
            timeout_s: As for `close`.

        Raises:
            DeliveryError: As for `close`.

        Example:
            ```python
            await producer.aclose()
            ```
        """
        await asyncio.to_thread(self.close, timeout_s)

    def _loop(self) -> Loop:
        running = asyncio.get_running_loop()
        known = self._loops.get(running)
        if known is None:
            for old, loop in list(self._loops.items()):
                if loop.closed:
                    self._loops.pop(old, None)
            known = self._loops[running] = Loop(self._outbox, self._settings.max_block_s)
        return known

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
