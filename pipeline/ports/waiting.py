"""Polling with a deadline: `Deadline`. All polling loops of the package use it.

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
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.ports.system import Clock

__all__ = ["Deadline"]


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
