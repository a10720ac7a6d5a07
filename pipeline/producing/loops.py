"""Events from coroutines: `Loop` is one event loop's way to an outbox. It never waits on the loop's thread.

Senders of a loop take turns in the order in which they called, so their events are taken in that order, also
while there is no room. Outcomes of many events come to the loop in one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from pipeline.producing.delivery import Delivered, RuntimeDelivery
from pipeline.producing.encoding import Encoded
from pipeline.producing.outbox import Outbox

__all__ = ["Loop"]


class Loop:
    """Of the running event loop."""

    def __init__(self, outbox: Outbox, max_block_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox
        self._max_block_s = max_block_s
        self._turn = asyncio.Lock()  # fair
        self._done: list[tuple[asyncio.Future[Delivered], RuntimeDelivery]] = []
        self._told = False

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    async def send(self, event: Encoded) -> Delivered:
        """Wait for room, then for the delivery. Cancelled, an event that was taken is sent all the same."""
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
        """On the producer's thread."""
        self._done.append((outcome, delivery))
        if not self._told:
            self._told = True
            if not self._call(self._resolve):
                self._forget()

    def _resolve(self) -> None:
        """On the loop. What is appended after the first line tells again."""
        self._told = False
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
        """The loop is gone, and with it those who waited."""
        self._told = False
        done, self._done = self._done, []
        for _, delivery in done:
            self._nobody_waits(delivery)

    def _nobody_waits(self, delivery: RuntimeDelivery) -> None:
        if delivery.exception() is not None:
            delivery.seen = False
            self._outbox.remember(delivery)

    def _call(self, function: Callable[[], object]) -> bool:
        """Whether the loop still runs, so that it will be called."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return False
        return True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
