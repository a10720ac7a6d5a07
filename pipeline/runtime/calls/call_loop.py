"""The event loop of a worker: `CallLoop`. It runs the calls of all async groups, in slices on the processing thread.

    worker.step    poll -> offer -> advance -> slice
    slice          run ready callbacks until no call starts or ends; if the turn did nothing else, wait up to 5 ms

So all code of handlers runs on the processing thread, and no other thread changes a task. While calls are in flight,
polls do not wait. While no call is outstanding, the loop does not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from pipeline.api.declared_group import DeclaredGroup
from pipeline.errors import ConfigError
from pipeline.ports import Clock, Deadline, EventLoop, Logger
from pipeline.runtime.calls.slots import Slots
from pipeline.runtime.crashes import Crashes
from pipeline.runtime.metrics.meter import Meter

__all__ = ["CallLoop"]

SLICE_S = 0.005  # the longest wait for calls in one turn
LONGEST_S = 0.1  # the longest slice, while calls start and end all the time
END_S = 1.0  # for cancelled calls at the end of the worker
CLOSE_S = 5.0  # for each resource


class Refilled(Protocol):
    """A task of async handlers."""

    def refill(self) -> None:
        """Move finished calls into the open commit, and add the calls of waiting records. It never raises."""
        ...


class CallLoop:
    """`open_loop`: creates the event loop when it is first needed. Processing thread only."""

    def __init__(
        self,
        open_loop: Callable[[], EventLoop],
        crashes: Crashes,
        clock: Clock,
        log: Logger,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter
        self._open_loop = open_loop
        self._crashes = crashes
        self._clock = clock
        self._log = log
        self._loop: EventLoop | None = None
        self._slots: list[Slots] = []
        self._tasks: dict[Refilled, None] = {}

    @property
    def in_flight(self) -> bool:
        """Whether a call has started and has not ended, so that polls must not wait."""
        return any(slots.in_flight for slots in self._slots)

    def slots_of(self, group: DeclaredGroup) -> Slots:
        """Create the slots for the calls of a group. Raises ConfigError inside a running event loop."""
        concurrency = group.bindings[0].concurrency
        slots = Slots(group.id, self._opened(), concurrency)
        self._slots.append(slots)
        return slots

    def add(self, task: Refilled) -> None:
        """Refill a task before each slice."""
        self._tasks[task] = None

    def remove(self, task: Refilled) -> None:
        self._tasks.pop(task, None)

    def turn(self, *, moved: bool) -> bool:
        """Run the calls. `moved`: other work was done, so do not wait. Returns whether a call started or ended."""
        self._refill()
        busy = [slots for slots in self._slots if slots.pending]
        if self._loop is None or not busy:
            return False
        before = _turns(busy)
        self._crashes.handling_calls()
        try:
            with self._measured(self._loop, busy):
                self._run_ready(self._loop, busy)
                if not moved and before == _turns(busy) and self.in_flight:
                    self._wait(busy, self._loop.wait, SLICE_S)
        finally:
            self._crashes.handled()
        for slots in busy:
            slots.end_turn()
        return before != _turns(busy)

    def drain(self, seconds: float) -> bool:
        """Run the calls, and wait for `seconds` if none starts or ends. Returns False if there are no calls to run."""
        active = [slots for slots in self._slots if slots.active]
        if self._loop is None or not active:
            return False
        if not self.turn(moved=True):
            self._wait(active, self._loop.sleep, seconds)
        return True

    def finish(self, awaitable: Awaitable[Any]) -> None:
        """Await `awaitable`, such as the `aclose` of a resource, for at most CLOSE_S. An error is logged."""
        task = self._until_done(self._opened(), _awaited(awaitable), CLOSE_S)
        error = task.exception() if task.done() and not task.cancelled() else TimeoutError(f"{CLOSE_S:g} s")
        if error is not None:
            self._log.warning("resource_not_closed", error=type(error).__name__, message=str(error))

    def close(self) -> None:
        """Cancel the asyncio tasks that still run, and close the loop."""
        if self._loop is None:
            return
        loop = self._loop.loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
        self._until_done(self._loop, _ended(asyncio.all_tasks(loop)), END_S)
        self._until_done(self._loop, loop.shutdown_asyncgens(), END_S)
        loop.close()
        self._loop = None

    def _until_done(
        self, loop: EventLoop, coroutine: Coroutine[Any, Any, None], seconds: float
    ) -> asyncio.Task[None]:
        """Run a coroutine to its end, for at most `seconds`."""
        task = loop.loop.create_task(coroutine)
        task.add_done_callback(lambda _: loop.loop.stop())
        deadline = Deadline(self._clock, seconds, SLICE_S)
        while not (task.done() or deadline.has_passed()):
            loop.sleep(SLICE_S)
        task.cancel()
        return task

    def _opened(self) -> EventLoop:
        if self._loop is None:
            if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented one raises if there is none
                raise ConfigError(
                    "a worker with async handlers cannot run inside a running event loop: it has its own",
                    hint="use `async with app.running()`, which has its own thread; or call app.run() or TestDriver "
                    "from a plain function",
                )
            self._loop = self._open_loop()
            self._loop.loop.set_exception_handler(self._unhandled)
        return self._loop

    def _run_ready(self, loop: EventLoop, busy: list[Slots]) -> None:
        """Run ready callbacks until no call starts or ends. Calls of waiting records replace calls that have ended."""
        until_s = self._clock.monotonic_s() + LONGEST_S
        while True:
            before = _turns(busy)
            self._begin(busy)
            loop.run_ready()
            if before == _turns(busy):
                return
            self._refill()
            if self._clock.monotonic_s() >= until_s:
                return

    def _refill(self) -> None:
        """Refill all tasks. Each time another task is first, because the tasks of a group share its slots."""
        for task in list(self._tasks):
            task.refill()
        if len(self._tasks) > 1:
            first = next(iter(self._tasks))
            self._tasks[first] = self._tasks.pop(first)

    def _measured(self, loop: EventLoop, busy: list[Slots]) -> AbstractContextManager[None]:
        """Measure the time of a slice. If calls of several groups run in it, it counts for the first group."""
        if self._meter is None:
            return nullcontext()
        return self._meter.running_calls(busy[0].group, lambda: loop.waited_s)

    def _wait(self, busy: list[Slots], pause: Callable[[float], None], seconds: float) -> None:
        """Wait until a call ends, for at most `seconds`."""
        self._begin(busy)
        for slots in busy:
            slots.awaited = True
        pause(seconds)
        for slots in busy:
            slots.awaited = False

    @staticmethod
    def _begin(busy: list[Slots]) -> None:
        for slots in busy:
            slots.begin_turn()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that reached no call, such as that of an asyncio task that a handler did not await."""
        error = context.get("exception")
        self._log.warning(
            "async_error_unhandled",
            error=type(error).__name__ if error is not None else "",
            message=f"{context.get('message', '')}: {error}"
            if error is not None
            else context.get("message", ""),
        )


def _turns(slots: list[Slots]) -> int:
    return sum(each.turns for each in slots)


async def _awaited(awaitable: Awaitable[Any]) -> None:
    await awaitable


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
