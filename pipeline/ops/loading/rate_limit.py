"""Limits a load to a number of records per second: `RateLimit`."""

from __future__ import annotations

from pipeline.ports import Clock

__all__ = ["RateLimit", "paced_rows"]

_COMMITS_PER_S = 10


class RateLimit:
    """Call the object with the number of records loaded since its creation. It waits until more are allowed."""

    def __init__(self, rate: int, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def __call__(self, records: int) -> None:
        due_s = self._began_s + records / self._rate
        wait_s = due_s - self._clock.monotonic_s()
        if wait_s > 0:
            self._clock.sleep(wait_s)


def paced_rows(rate: int, rows: int) -> int:
    """The rows of one transaction, at most `rows`: with a low rate, transactions are small and frequent."""
    return max(1, min(rows, rate // _COMMITS_PER_S))
