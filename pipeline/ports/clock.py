"""Time and randomness."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "Random", "SystemClock"]


class Clock(Protocol):
    """Time. Nothing in the runtime asks the operating system itself."""

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks: for production, and for adapters, which wait for real brokers and processes."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Random(Protocol):
    """Randomness. Seeded in tests."""

    def token(self, size: int) -> bytes: ...

    def uniform(self, low: float, high: float) -> float: ...
