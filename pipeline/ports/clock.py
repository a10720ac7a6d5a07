"""Time and randomness."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock", "Random"]


class Clock(Protocol):
    """Time. Nothing in the runtime asks the operating system itself."""

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class Random(Protocol):
    """Randomness. Seeded in tests."""

    def token(self, size: int) -> bytes: ...

    def uniform(self, low: float, high: float) -> float: ...
