"""Time and randomness that a test controls: `ManualClock`, `SeededRandom`."""

from __future__ import annotations

import random
import threading

__all__ = ["ManualClock", "SeededRandom"]


class ManualClock:
    """A clock that moves only when a test advances it, or when code under test sleeps.

    Args:
        wall_ms: The wall clock at the start, in milliseconds since the epoch.

    Example:
        ```python
        driver.clock.advance(3600)
        ```
    """

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._lock = threading.Lock()
        self._elapsed_s = 0.0
        self._start_ms = wall_ms

    def monotonic_s(self) -> float:
        """The monotonic clock.

        Returns:
            Seconds since the start.
        """
        with self._lock:
            return self._elapsed_s

    def wall_ms(self) -> int:
        """The wall clock.

        Returns:
            Milliseconds since the epoch.
        """
        with self._lock:
            return self._start_ms + int(self._elapsed_s * 1000)

    def sleep(self, seconds: float) -> None:
        """Advance the clock and return at once.

        Args:
            seconds: The time to sleep.
        """
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Args:
            seconds: How much.
        """
        with self._lock:
            self._elapsed_s += seconds

    def set_wall_ms(self, wall_ms: int) -> None:
        """Set the wall clock, as a correction of a machine's clock does. The monotonic clock is unchanged.

        Args:
            wall_ms: Milliseconds since the epoch.
        """
        with self._lock:
            self._start_ms = wall_ms - int(self._elapsed_s * 1000)


class SeededRandom:
    """Random numbers that are the same for the same seed.

    Args:
        seed: Any number.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (never a secret)

    def token(self, size: int) -> bytes:
        """Random bytes.

        Args:
            size: How many.

        Returns:
            The bytes.
        """
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        """A random number.

        Args:
            low: The lowest.
            high: The highest.

        Returns:
            The number.
        """
        return self._random.uniform(low, high)
