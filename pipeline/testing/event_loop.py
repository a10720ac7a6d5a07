"""The event loop of a simulated process: its time is the clock of the test, and it never waits for a timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from pipeline.ports import Deadline, SystemClock
from pipeline.testing.system import ManualClock

__all__ = ["ManualEventLoop"]

# Of real time, for sockets and threads that a handler uses: they know nothing of the clock of the test.
_REAL_WAIT_S = 0.01


class ManualEventLoop:
    """`ports.EventLoop`. `asyncio.sleep` and time-outs follow the manual clock, so a test of an hour takes no time.

    A handler may use real sockets and threads. Then the loop gives them a few milliseconds in each turn.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._loop = _Loop(clock)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def waited_s(self) -> float:
        return 0.0  # of the clock of the test

    def run_ready(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def wait(self, seconds: float) -> None:  # noqa: ARG002 - no time passes
        """Run until nothing is ready."""
        self._loop.run_forever()

    def end_wait(self) -> None:
        """Nothing waits."""

    def sleep(self, seconds: float) -> None:
        """Run until nothing is ready. Then the time passes."""
        self.wait(seconds)
        self._clock.advance(seconds)

    def abandon(self) -> None:
        """End the loop as SIGKILL does: nothing of it runs any more."""
        if not self._loop.is_closed():
            self._loop.abandon()


class _Loop(asyncio.SelectorEventLoop):
    """It has no file descriptor until a handler uses one, so a test need not close it."""

    def __init__(self, clock: ManualClock) -> None:
        self._manual_clock = clock
        self._threads = 0  # functions that run on threads
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._manual_clock.monotonic_s()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        self._threads += 1
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    @property
    def has_threads(self) -> bool:
        return self._threads > 0

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)  # type: ignore[attr-defined]

    def abandon(self) -> None:
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is meant to end so
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()

    def __del__(self) -> None:
        if not self.is_closed():
            self.abandon()

    def _thread_ended(self, _future: asyncio.Future[Any]) -> None:
        self._threads -= 1

    # A loop that never waits long needs no wake-up by a thread, which would cost two descriptors.
    def _make_self_pipe(self) -> None: ...

    def _close_self_pipe(self) -> None: ...

    def _write_to_self(self) -> None: ...


class _Selector(selectors.BaseSelector):
    """Waits for real descriptors and threads, if there are any. If nothing comes, it ends the run of the loop."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._real: selectors.BaseSelector | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._real is None:
            self._real = selectors.DefaultSelector()
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        if self._real is None:
            raise KeyError(fileobj)
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._real is None:
            raise KeyError(fileobj)
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        idle = timeout is None or timeout > 0
        found = self._select(_REAL_WAIT_S if idle else 0.0)
        if idle and not found and not self._loop.has_ready:
            self._loop.stop()
        return found

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map() if self._real is not None else {}

    def close(self) -> None:
        if self._real is not None:
            self._real.close()

    def _select(self, wait_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        if self._real is not None and self._real.get_map():
            return self._real.select(wait_s)
        deadline = Deadline(SystemClock(), wait_s, pause_s=0.001)
        while wait_s and self._loop.has_threads and not self._loop.has_ready and deadline.pause():
            pass
        return []
