"""`EventProducer`: typed events from any thread or coroutine to topics, on whatever client it is given."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

from pipeline.api.declarations import Topic
from pipeline.config import ProducerSettings
from pipeline.errors import InvariantError
from pipeline.ports import EventClients, Logger
from pipeline.producing.delivery import Delivered, Delivery, OnDelivery
from pipeline.producing.encoding import Encoder
from pipeline.producing.loops import Loop
from pipeline.producing.outbox import Outbox

__all__ = ["EventProducer"]

K = TypeVar("K")
V = TypeVar("V")


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
        """Take an event, and return before it is delivered; the Delivery tells when it is.

        id: what duplicates are recognised by; one of your own makes a repetition recognisable. Without it the
        event gets a UUIDv7. timestamp_ms: since the epoch; without it, now. on_delivery: called with the
        Delivery on the producer's thread; a failure it was told of is not raised by `flush` any more.

        Waits up to `max_block_s` while `max_records` or `max_bytes` wait for delivery, then raises
        QueueFullError. Raises TypeError, ValueError or OverflowError for what the topic's types do not
        allow or what is too large, ConfigError for what is no topic, ProducerClosedError. In each of these cases
        nothing was sent.
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
        """Send an event and wait until it is delivered, without blocking the loop; where it is.

        Events are sent in the order of the calls, however many are under way. Raises as `send` does, and
        DeliveryError and ConfigError as `Delivery.result` does. Cancelling gives up the waiting, not the event.
        """
        event = self._encoder.encode(topic, key, value, id, headers, timestamp_ms)
        return await self._loop().send(event)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was sent before is delivered or has failed; at most `delivery_timeout_s` by itself.

        Raises DeliveryError, with how many and the first ones: events not delivered within `timeout_s`, which
        go on being tried, and events that have failed since the last flush without anybody having looked.
        """
        self._outbox.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """`flush`, and release the client. What is not delivered within `timeout_s` is given up and in the error."""
        self._outbox.close(timeout_s)
        self._dropped.detach()

    async def aflush(self, timeout_s: float | None = None) -> None:
        """`flush` beside the loop."""
        await asyncio.to_thread(self.flush, timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> None:
        """`close` beside the loop."""
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
