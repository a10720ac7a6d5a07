"""Continues the step of an agent that really waits: `AgentLoop`, the event loop, and `AgentTask`, its asyncio Task.

Most steps of an agent never wait: it asks for the next event, and the handler returns. They run without the event loop.
If the agent awaits something that is not ready, such as the answer of an HTTP request, its coroutine yields a future
to the code that steps it:

    1. The direct step hands the future over to the agent's asyncio Task, which was waiting for that.
    2. The loop runs, until the Task has stepped the coroutine to its next request for an event.
    3. The Task waits again.

The direct step runs inside the context of the Task, as `asyncio.current_task()` on this loop. So code of the agent
cannot see which of the two steps it: `asyncio.timeout`, locks and clients such as aiohttp work in both.

The loop runs only while a step waits, and once after each event if something is ready. So asyncio tasks that an agent
starts and does not wait for proceed at these times. Processing thread only.
"""

from __future__ import annotations

import asyncio
from asyncio import events, tasks
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any

__all__ = ["NEXT", "AgentLoop", "AgentReturned", "AgentTask"]


class _Next:
    """What a coroutine of an agent yields when it asks for the next event."""

    def __repr__(self) -> str:
        return (
            "the request for the next event of a stream; only the agent itself may iterate over its stream, not an "
            "asyncio task that it has started"
        )


NEXT = _Next()


class AgentLoop(asyncio.SelectorEventLoop):
    """The event loop of the agents in one worker. `pending`: whether a callback is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = False

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        self.pending = True
        return super().call_soon(callback, *args, context=context)

    def run_ready(self) -> None:
        """Run what is ready now, once."""
        self.pending = False
        super().call_soon(self.stop)
        self.run_forever()

    def __del__(self) -> None:
        """Close it where a worker has crashed in a test, which closes nothing."""
        if not self.is_closed():
            super().close()

    def close(self) -> None:
        """Cancel what still runs, and close the loop."""
        if self.is_closed() or self.is_running():
            return
        rest = asyncio.all_tasks(self)
        for task in rest:
            task.cancel()
        if rest:
            self.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self.run_until_complete(self.shutdown_asyncgens())
        super().close()


class AgentReturned(Exception):  # noqa: N818 - an outcome, as StopIteration is
    """The coroutine of the agent has returned, instead of asking for the next event."""


class AgentTask:
    """The asyncio Task of an agent, on `loop`, in `context`. It waits until a step is handed over."""

    def __init__(self, loop: AgentLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._on_the_loop(events._get_running_loop(), self._start)  # noqa: SLF001

    def step(self, agent: Coroutine[Any, Any, Any], value: Any) -> None:
        """Send a value to the coroutine of the agent, and return when it asks for the next event.

        Raises AgentReturned, and what the agent raises.
        """
        loop, task = self._loop, self._task
        outer = events._get_running_loop()  # noqa: SLF001 - documented for implementations of loops
        events._set_running_loop(loop)  # noqa: SLF001
        tasks._enter_task(loop, task)  # noqa: SLF001 - documented for implementations of tasks
        try:
            yielded = self._context.run(agent.send, value)
        except StopIteration:
            raise AgentReturned from None
        finally:
            tasks._leave_task(loop, task)  # noqa: SLF001
            events._set_running_loop(outer)  # noqa: SLF001
        if yielded is not NEXT:
            self._on_the_loop(outer, lambda: self._continue(agent, yielded))
        elif loop.pending:
            self._on_the_loop(outer, loop.run_ready)

    def _start(self) -> None:
        """Start the Task. It waits for its first turn when this returns."""
        self._turn: asyncio.Future[tuple[Coroutine[Any, Any, Any], Any]] = self._loop.create_future()
        self._outcome: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._task = self._loop.create_task(self._run(), context=self._context)
        # The agent ends by garbage collection, and the Task with it.
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        self._loop.run_ready()

    def _on_the_loop(self, outer: asyncio.AbstractEventLoop | None, action: Callable[[], None]) -> None:
        """Do what runs the loop. A test may have called from inside of another loop."""
        events._set_running_loop(None)  # noqa: SLF001
        try:
            action()
        finally:
            events._set_running_loop(outer)  # noqa: SLF001

    def _continue(self, agent: Coroutine[Any, Any, Any], yielded: Any) -> None:
        """Hand a step over to the Task, and run the loop until it is done."""
        if self._task.done():  # the agent has cancelled it
            self._start()
        self._outcome = self._loop.create_future()
        self._turn.set_result((agent, yielded))
        error = self._loop.run_until_complete(self._outcome)
        try:
            if error is not None:
                raise error
        finally:
            del error  # this frame is in its traceback

    async def _run(self) -> None:
        while True:
            agent, yielded = await self._turn
            self._turn = self._loop.create_future()
            try:
                await _continued(agent, yielded)
            except BaseException as error:  # noqa: BLE001 - the step raises it
                self._outcome.set_result(error)
            else:
                self._outcome.set_result(None)


@coroutine
def _continued(agent: Coroutine[Any, Any, Any], yielded: Any) -> Generator[Any, Any, None]:
    """Step the coroutine as an asyncio Task does, until it asks for the next event."""
    try:
        while yielded is not NEXT:
            try:
                sent = yield yielded
            except BaseException as error:  # noqa: BLE001 - of what it waits for, or a cancellation
                yielded = agent.throw(error)
            else:
                yielded = agent.send(sent)
    except StopIteration:
        raise AgentReturned from None
