"""Holds a load to a number of records a second: `RateLimit`."""

from __future__ import annotations

from pipeline.ports import Clock

__all__ = ["RateLimit", "paced_rows"]

_COMMITS_PER_S = 10


class RateLimit:
    """Call it with how many records are loaded since it was made; it returns when there may be more."""

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
    """How many rows a transaction may have, at most `rows`, so that they arrive in a stream and not in heaps."""
    return max(1, min(rows, rate // _COMMITS_PER_S))
