"""Time and randomness that a test controls: `ManualClock`, `SeededRandom`."""

from __future__ import annotations

import random
import threading

__all__ = ["ManualClock", "SeededRandom"]


class ManualClock:
    """Time stands still until somebody sleeps or a test advances it."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._lock = threading.Lock()
        self._elapsed_s = 0.0
        self._start_ms = wall_ms

    def monotonic_s(self) -> float:
        with self._lock:
            return self._elapsed_s

    def wall_ms(self) -> int:
        with self._lock:
            return self._start_ms + int(self._elapsed_s * 1000)

    def sleep(self, seconds: float) -> None:
        """Returns at once; the time has passed."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._elapsed_s += seconds

    def set_wall_ms(self, wall_ms: int) -> None:
        """Jump the wall clock, as a machine does that is set right; monotonic time is not touched."""
        with self._lock:
            self._start_ms = wall_ms - int(self._elapsed_s * 1000)


class SeededRandom:
    """The same numbers for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (never a secret)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)
