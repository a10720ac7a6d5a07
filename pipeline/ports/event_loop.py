"""The port to asyncio: `EventLoop`, which runs the calls of async handlers in slices on the processing thread."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["EventLoop", "SystemEventLoop"]


class EventLoop(Protocol):
    """An asyncio loop that runs only while one of these methods does. All of them raise what ends the process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def run_ready(self) -> None:
        """Run what is ready, once. It never waits."""
        ...

    def wait(self, seconds: float) -> None:
        """Run until `loop.stop` is called, or for this long."""
        ...

    def sleep(self, seconds: float) -> None:
        """As `wait`. Under a clock that a test controls, the time passes."""
        ...


class SystemEventLoop:
    """The loop of asyncio. For production."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def run_ready(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def wait(self, seconds: float) -> None:
        end = self._loop.call_later(seconds, self._loop.stop)
        try:
            self._loop.run_forever()
        finally:
            end.cancel()

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)
