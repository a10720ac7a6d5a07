"""Polling with a deadline: `Deadline`. Repeating long steps: `Attempts`. All loops that wait use one of them.

    deadline = Deadline(clock, 10.0, pause_s=0.05)
    while not is_there():
        if not deadline.pause():
            raise FatalTaskError("it is not there after 10 s")

To retry a call that fails:

    while True:
        try:
            return ask()
        except RetriableError:
            if not deadline.pause():
                raise

The condition is always checked at least once, and once more after the last pause. The clock is read only after a
check that failed.

A step that may take long itself, such as a restore, is limited by its number of attempts, not by a time-out: with a
time-out, a restore of ten minutes that is overtaken once would not be repeated.

    attempts = Attempts(clock, 5, growing(0.1, 2.0))
    while True:
        try:
            return restore()
        except RetriableError:
            if not attempts.pause():
                raise
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.ports.system import Clock

__all__ = ["Attempts", "Deadline", "growing"]


class Deadline:
    """A time-out that starts now, and the pauses until it expires. For one wait, from one thread.

    Args:
        clock: the source of time.
        timeout_s: seconds from now; 0: the condition is checked once.
        pause_s: seconds between two attempts, or a function that returns them, for random pauses.
    """

    def __init__(self, clock: Clock, timeout_s: float, pause_s: float | Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._began_s = clock.monotonic_s()
        self._timeout_s = timeout_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic_s() - self._began_s

    def has_passed(self, timeout_s: float | None = None) -> bool:
        """Whether the time-out has expired. `timeout_s`: a shorter time-out to check instead."""
        allowed_s = self._timeout_s if timeout_s is None else timeout_s
        return self.elapsed_s >= allowed_s

    def pause(self, timeout_s: float | None = None) -> bool:
        """Sleep until the next attempt. Returns False if the time-out has expired, else True."""
        if self.has_passed(timeout_s):
            return False
        self._clock.sleep(self._pause_s() if callable(self._pause_s) else self._pause_s)
        return True


class Attempts:
    """A limited number of attempts, and the pauses between them. For one wait, from one thread.

    Args:
        clock: pauses.
        limit: the number of attempts, from 1.
        pause_s: seconds between two attempts, or a function that returns them, for random or growing pauses.
    """

    def __init__(self, clock: Clock, limit: int, pause_s: float | Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._left = limit

    def pause(self) -> bool:
        """Sleep until the next attempt. Returns False if the last attempt was made, else True."""
        self._left -= 1
        if self._left <= 0:
            return False
        self._clock.sleep(self._pause_s() if callable(self._pause_s) else self._pause_s)
        return True


def growing(first_s: float, longest_s: float) -> Callable[[], float]:
    """Pauses in seconds: `first_s`, then twice as long each time, up to `longest_s`."""
    next_s = first_s

    def pause_s() -> float:
        nonlocal next_s
        this_s, next_s = next_s, min(next_s * 2, longest_s)
        return this_s

    return pause_s
