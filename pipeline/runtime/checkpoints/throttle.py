"""Keeps transfers together below a number of bytes a second: `Throttle`."""

from __future__ import annotations

import threading

from pipeline.ports import Clock

__all__ = ["Throttle"]


class Throttle:
    """Shared by threads. `bytes_per_s` 0: no limit."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._free_s = clock.monotonic_s()

    def take(self, count: int) -> None:
        """Wait until `count` bytes more may go. What was not used before is not made up for."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now = self._clock.monotonic_s()
            begin = max(now, self._free_s)
            self._free_s = begin + count / self._bytes_per_s
        if begin > now:
            self._clock.sleep(begin - now)
