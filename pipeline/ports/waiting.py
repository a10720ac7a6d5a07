"""Polling with a deadline: `Deadline`, the one loop of the package that waits for a condition by asking again.

    deadline = Deadline(clock, 10.0, pause_s=0.05)
    while not is_there():
        if not deadline.pause():
            raise FatalTaskError("it is not there after 10 s")

and, to try again what fails:

    while True:
        try:
            return ask()
        except RetriableError:
            if not deadline.pause():
                raise

So the condition is always asked once, and once more after the last pause. The clock is asked only after a condition
that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.ports.system import Clock

__all__ = ["Deadline"]


class Deadline:
    """A time-out that begins now, and the pauses until it has passed. One wait each, from one thread.

    Args:
        clock: measures the time and sleeps.
        timeout_s: seconds from now on; 0 means that the condition is asked once.
        pause_s: seconds between two attempts, or what returns them, as for pauses that are random.
    """

    def __init__(self, clock: Clock, timeout_s: float, pause_s: float | Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._began_s = clock.monotonic_s()
        self._timeout_s = timeout_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock.monotonic_s() - self._began_s

    def has_passed(self, timeout_s: float | None = None) -> bool:
        """Whether the time is over. `timeout_s`: another one, for a condition that is waited for less long."""
        allowed_s = self._timeout_s if timeout_s is None else timeout_s
        return self.elapsed_s >= allowed_s

    def pause(self, timeout_s: float | None = None) -> bool:
        """Sleep until the next attempt and return True; return False once the time is over."""
        if self.has_passed(timeout_s):
            return False
        self._clock.sleep(self._pause_s() if callable(self._pause_s) else self._pause_s)
        return True
