"""Limits the total rate of transfers: `Throttle`."""

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
        """Wait until `count` more bytes may be transferred. Unused capacity is not saved up."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now = self._clock.monotonic_s()
            begin = max(now, self._free_s)
            self._free_s = begin + count / self._bytes_per_s
        if begin > now:
            self._clock.sleep(begin - now)
