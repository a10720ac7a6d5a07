"""Slow reads are shared, and never take all threads of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import UnreachableError
from pipeline.http.background import Background
from pipeline.testing import ManualClock


class Slow:
    """A read that ends when it is told to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = threading.Semaphore(0)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self.begun.release()
        assert self.may_end.wait(30)
        return self.calls

    def has_begun(self, times: int) -> bool:
        """Wait until this many more calls have begun: a request may give up before its thread has run."""
        return all(self.begun.acquire(timeout=30) for _ in range(times))


@pytest.fixture
def slow() -> Iterator[Slow]:
    read = Slow()
    yield read
    read.may_end.set()


def test_a_result_is_shared_for_a_second() -> None:
    """A page that polls must not multiply the requests to Kafka."""
    clock, slow = ManualClock(), Slow()
    slow.may_end.set()
    background = Background("it", slow, 30.0, threading.Semaphore(1), clock.monotonic_s)
    assert [background.value(), background.value()] == [1, 1]
    clock.advance(1.1)
    assert background.value() == 2


def test_a_request_waits_only_so_long(slow: Slow) -> None:
    """And the next one does not start a second read beside the first."""
    clock = ManualClock()
    background = Background("the status", slow, 30.0, threading.Semaphore(2), clock.monotonic_s)
    slow.may_end.set()
    assert background.value() == 1
    slow.may_end.clear()
    clock.advance(60)
    background._wait_s = 0.01
    for _ in range(3):
        with pytest.raises(UnreachableError, match="the status is still being read"):
            background.value()
    assert slow.has_begun(2)
    assert slow.calls == 2


def test_few_requests_wait_at_a_time(slow: Slow) -> None:
    """The server has four threads, and the probes need one of them."""
    background = Background("it", slow, 30.0, threading.Semaphore(1), ManualClock().monotonic_s)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(background.aged)
        assert slow.begun.acquire(timeout=30)
        with pytest.raises(UnreachableError):
            background.aged()
        slow.may_end.set()
        assert waiting.result(30)[0] == 1


def test_an_earlier_result_is_the_answer_while_it_is_usable(slow: Slow) -> None:
    """A gap in a metric looks like its end, and an alert on it would begin again."""
    clock = ManualClock()
    background = Background(
        "it", slow, 30.0, threading.Semaphore(1), clock.monotonic_s, fresh_s=30.0, usable_s=120.0
    )
    slow.may_end.set()
    assert background.value() == 1
    clock.advance(29)
    assert background.value() == 1
    assert slow.calls == 1
    slow.may_end.clear()
    background._wait_s = 0.01
    clock.advance(90)
    assert background.value() == 1
    assert slow.has_begun(2)
    assert slow.calls == 2
    clock.advance(2)
    with pytest.raises(UnreachableError):
        background.value()


def test_a_failed_read_leaves_the_usable_result() -> None:
    """One request that Kafka does not answer is not worth a gap."""
    clock = ManualClock()
    answers: list[int | Exception] = [1, UnreachableError("away"), UnreachableError("away")]

    def read() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    background = Background(
        "it", read, 30.0, threading.Semaphore(1), clock.monotonic_s, fresh_s=30.0, usable_s=120.0
    )
    assert background.value() == 1
    clock.advance(100)
    assert background.value() == 1
    clock.advance(100)
    with pytest.raises(UnreachableError, match="away"):
        background.value()


def test_an_error_is_the_answer_until_the_next_read() -> None:
    """A failed read leaves nothing behind that could be taken for a result."""
    clock = ManualClock()
    answers: list[int | Exception] = [1, UnreachableError("away"), 2]

    def read() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    background = Background("it", read, 30.0, threading.Semaphore(1), clock.monotonic_s)
    assert background.value() == 1
    clock.advance(1.1)
    for _ in range(2):
        with pytest.raises(UnreachableError, match="away"):
            background.value()
    clock.advance(1.1)
    assert background.value() == 2
