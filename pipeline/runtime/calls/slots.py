"""The slots in which the calls of a group run in this worker, at most `concurrency` at once: `Slots`.

A slot is a long-lived asyncio task that runs one call after the other. So a call that never suspends costs no asyncio
task. A slot that was cancelled ends after that call: the cancellation must not reach the next call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from pipeline.core.names import GroupId
from pipeline.ports import EventLoop
from pipeline.runtime.calls.call import Call, CallState
from pipeline.runtime.task.handler_errors import ENDING

__all__ = ["CallCancelledError", "Slots"]

# A slot that has not suspended for this long yields to other slots, connections and time-outs.
TURN_S = 0.005


class CallCancelledError(Exception):
    """Stands for a cancellation that the handler's own code caused."""


class Slots:
    """Processing thread only, except `at_work`. `loop`: the worker's event loop."""

    def __init__(self, group: GroupId, loop: EventLoop, concurrency: int) -> None:
        self.group = group
        self._event_loop = loop
        self._loop = loop.loop
        self._concurrency = concurrency
        self._ready: deque[Call] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._slots: set[asyncio.Task[None]] = set()
        self._live: dict[asyncio.Task[Any], Call] = {}
        self._later: set[Call] = set()
        self._waking = False
        self._fatal: BaseException | None = None
        self._overdue: Call | None = None
        self.turns = 0  # calls that started or ended
        self.awaited = False  # the worker waits for the next call that ends

    @property
    def in_flight(self) -> int:
        """The number of calls that have started and have not ended."""
        return len(self._live)

    @property
    def ready(self) -> int:
        """The number of calls that wait for a slot."""
        return len(self._ready)

    @property
    def active(self) -> bool:
        """Whether a call has started and has not ended, or can start now."""
        return bool(self._ready or self._live)

    @property
    def pending(self) -> bool:
        """Whether the loop has something to do for these calls, now or later."""
        return bool(self._ready or self._live or self._later)

    @property
    def at_work(self) -> Call | None:
        """The call that runs on the processing thread, or else one that ignores its cancellation.

        Any thread may call it.
        """
        task = asyncio.current_task(self._loop)
        return (self._live.get(task) if task is not None else None) or self._overdue

    def add(self, call: Call) -> None:
        """Start a call as soon as a slot is free."""
        self._ready.append(call)

    def add_later(self, call: Call, wait_s: float) -> None:
        """Start a retry after a wait, unless it is dropped meanwhile."""

        def due() -> None:
            self._later.discard(call)
            if call.state is CallState.RETRIED:
                call.state = CallState.WAITING
                self._ready.append(call)

        self._later.add(call)
        self._loop.call_later(wait_s, due)

    def cancel(self, call: Call) -> None:
        """Cancel a call that runs."""
        for task, live in self._live.items():
            if live is call:
                task.cancel()

    def begin_turn(self) -> None:
        """Cancel the calls that have exceeded `timeout_s`, and let free slots take calls that wait."""
        now_s = self._loop.time()
        overdue = None
        for task, call in self._live.items():
            timeout_s = call.route.binding.timeout_s
            if call.cancelled_s is not None and now_s - call.cancelled_s >= timeout_s:
                overdue = overdue or call
                call.cancelled_s = now_s
                task.cancel()
            elif call.cancelled_s is None and now_s - call.started_s >= timeout_s:
                call.cancelled_s = now_s
                task.cancel()
            elif call is self._overdue:
                overdue = call
        self._overdue = overdue
        self._wake()

    def end_turn(self) -> None:
        """If a handler has raised an error that ends the process, raise it."""
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            raise fatal

    def _wake(self) -> None:
        """Let one more slot take calls. That slot wakes the next one if more calls wait."""
        if self._waking or not self._ready:
            return
        if self._idle:
            self._waking = True
            self._idle.pop().set_result(None)
        elif len(self._slots) < self._concurrency:
            self._waking = True
            slot = self._loop.create_task(self._slot())
            self._slots.add(slot)
            slot.add_done_callback(self._slots.discard)

    async def _slot(self) -> None:
        ready, time = self._ready, self._loop.time
        me = asyncio.current_task()
        if me is None:
            return
        while True:
            self._waking = False
            since_s = time()
            while ready:
                call = ready.popleft()
                if call.state is not CallState.WAITING:
                    continue  # it was dropped
                if ready and not self._waking:
                    self._wake()
                call.started_s = now_s = time()
                if now_s - since_s > TURN_S:
                    ready.appendleft(call)
                    await asyncio.sleep(0)
                    since_s = time()
                    continue
                self._live[me] = call
                call.state = CallState.RUNNING
                self.turns += 1
                error: BaseException | None = None
                try:
                    await call.start()
                except ENDING as fatal:
                    self._fatal = fatal
                    self._loop.stop()
                except BaseException as raised:
                    if not self._loop.is_running():
                        raise  # the loop was abandoned, and Python closes this coroutine
                    error = raised
                self._ended(me, call, error)
                if me.cancelling() or self._fatal is not None:
                    return
            wake = self._loop.create_future()
            self._idle.append(wake)
            await wake

    def _ended(self, me: asyncio.Task[Any], call: Call, error: BaseException | None) -> None:
        """Settle a call whose handler has ended."""
        del self._live[me]
        self.turns += 1
        if self.awaited:
            self.awaited = False
            self._event_loop.end_wait()
        if call.state is CallState.DROPPED or self._fatal is not None:
            return
        if call.cancelled_s is None and error is None:
            call.calls.done(call)
        else:
            call.calls.failed(call, _reason(call, error))


def _reason(call: Call, error: BaseException | None) -> BaseException:
    """The error of a failed attempt. An attempt that exceeded `timeout_s` has failed, however it ended."""
    if error is None or call.cancelled_s is not None:
        late = TimeoutError(f"the call did not end within {call.route.binding.timeout_s:g} s")
        late.__cause__ = error
        return late
    if isinstance(error, asyncio.CancelledError):
        stopped = CallCancelledError("the call was cancelled by its own code")
        stopped.__cause__ = error
        return stopped
    return error
