"""The port to asyncio: `EventLoop`, which runs the calls of async handlers in slices on the processing thread."""

from __future__ import annotations

import asyncio
import selectors
from typing import Protocol

from pipeline.ports.system import SystemClock

__all__ = ["EventLoop", "SystemEventLoop"]

_SOON_S = 0.001


class EventLoop(Protocol):
    """An asyncio loop that runs only while one of these methods does. All of them raise what ends the process."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def waited_s(self) -> float:
        """The seconds that it has waited so far for connections and timers."""
        ...

    def run_ready(self) -> None:
        """Run what is ready, once. It never waits."""
        ...

    def wait(self, seconds: float) -> None:
        """Run until `loop.stop` is called, or for this long."""
        ...

    def end_wait(self) -> None:
        """End `wait` in a moment, so that others that end at the same time are in the same turn."""
        ...

    def sleep(self, seconds: float) -> None:
        """As `wait`. Under a clock that a test controls, the time passes."""
        ...


class _Selector(selectors.DefaultSelector):
    """Measures how long it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = SystemClock()
        self.waited_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        began_s = self._clock.monotonic_s()
        found = super().select(timeout)
        self.waited_s += self._clock.monotonic_s() - began_s
        return found


class SystemEventLoop:
    """The loop of asyncio. For production."""

    def __init__(self) -> None:
        self._selector = _Selector()
        self._loop = asyncio.SelectorEventLoop(self._selector)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def waited_s(self) -> float:
        return self._selector.waited_s

    def run_ready(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def wait(self, seconds: float) -> None:
        end = self._loop.call_later(seconds, self._loop.stop)
        try:
            self._loop.run_forever()
        finally:
            end.cancel()

    def end_wait(self) -> None:
        self._loop.call_later(_SOON_S, self._loop.stop)

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)
