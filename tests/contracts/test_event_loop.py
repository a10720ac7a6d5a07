"""What the worker relies on in an event loop: that of asyncio, and that of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.ports import EventLoop, SystemClock, SystemEventLoop
from pipeline.testing import ManualClock
from pipeline.testing.event_loop import ManualEventLoop

LONG_S = 60.0


@pytest.fixture(params=["asyncio", "manual"])
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    made: EventLoop = SystemEventLoop() if request.param == "asyncio" else ManualEventLoop(ManualClock())
    yield made
    made.loop.close()


def test_what_is_ready_runs_without_a_wait(loop: EventLoop) -> None:
    """A turn of the worker with much to do must not wait for calls."""
    ran: list[str] = []
    loop.loop.call_soon(ran.append, "soon")
    late = loop.loop.call_later(LONG_S, ran.append, "late")
    loop.run_ready()
    assert ran == ["soon"]
    late.cancel()


def test_a_task_continues_where_the_last_slice_ended(loop: EventLoop) -> None:
    """Calls live across many turns of the worker."""
    done: list[int] = []

    async def count() -> None:
        for number in range(3):
            await asyncio.sleep(0)
            done.append(number)

    task = loop.loop.create_task(count())
    for _ in range(5):
        loop.run_ready()
    assert done == [0, 1, 2]
    assert task.done()


def test_a_wait_ends_soon_after_it_is_told_to(loop: EventLoop) -> None:
    """A finished call is committed without the rest of the wait."""
    began_s = SystemClock().monotonic_s()
    loop.loop.call_soon(loop.end_wait)
    loop.wait(LONG_S)
    assert SystemClock().monotonic_s() - began_s < LONG_S / 2


def test_a_wait_hears_sockets(loop: EventLoop) -> None:
    """The answer of a service ends the wait of its call."""
    mine, other = socket.socketpair()
    with closing(mine), closing(other):
        mine.setblocking(False)
        task = loop.loop.create_task(loop.loop.sock_recv(mine, 10))
        task.add_done_callback(lambda _: loop.end_wait())
        loop.run_ready()
        other.sendall(b"answer")
        loop.wait(LONG_S)
        assert task.result() == b"answer"


def test_a_wait_hears_threads(loop: EventLoop) -> None:
    """Blocking clients run in threads."""
    task = loop.loop.create_task(asyncio.to_thread(lambda: "done"))
    task.add_done_callback(lambda _: loop.end_wait())
    for _ in range(100):
        loop.wait(0.05)
        if task.done():
            break
    assert task.result() == "done"


def test_a_manual_loop_waits_for_no_timer() -> None:
    """A test of an hour takes no time; the clock of the test says when a timer is due."""
    clock = ManualClock()
    loop = ManualEventLoop(clock)
    ran: list[str] = []
    loop.loop.call_later(3600.0, ran.append, "hour")
    loop.wait(LONG_S)
    assert (ran, clock.monotonic_s()) == ([], 0.0)
    loop.sleep(3600.0)
    loop.run_ready()
    assert ran == ["hour"]
    loop.abandon()


def test_the_waits_of_a_loop_are_measured() -> None:
    """The time in handlers is that of the slice without them."""
    loop = SystemEventLoop()
    loop.run_ready()
    assert loop.waited_s == 0.0
    loop.wait(0.02)
    assert 0.01 < loop.waited_s < LONG_S
    loop.loop.close()
