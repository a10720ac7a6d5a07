"""The process itself, as the runtime sees it: time, randomness, work beside the processing thread, the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["Clock", "Executor", "Logger", "Pending", "Random", "SystemClock"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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


class Pending(Protocol[T_co]):
    """A step under way."""

    def done(self) -> bool: ...

    def result(self) -> T_co:
        """Wait for the step; its value, or raise what it raised."""
        ...


class Executor(Protocol):
    """Runs steps beside the processing thread: threads in production, a seeded scheduler in tests."""

    def submit(self, step: Callable[[], T]) -> Pending[T]: ...

    def close(self) -> None:
        """Wait for the steps under way and end."""
        ...


class Logger(Protocol):
    """Structured log: an event and its fields. Never a secret, never once per record."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
