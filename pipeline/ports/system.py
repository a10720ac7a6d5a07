"""The ports to the process: time, randomness, background work and the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["Clock", "Executor", "Logger", "Pending", "Random", "SystemClock"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Clock(Protocol):
    """Time. The runtime never reads the time from the operating system."""

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clocks of the operating system. For production, and for adapters that wait for brokers and processes."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Random(Protocol):
    """Random numbers. Tests use a seed."""

    def token(self, size: int) -> bytes: ...

    def uniform(self, low: float, high: float) -> float: ...


class Pending(Protocol[T_co]):
    """A function that an Executor runs, like a future."""

    def done(self) -> bool: ...

    def result(self) -> T_co:
        """Wait for the function. Returns its value, or raises what it raised."""
        ...


class Executor(Protocol):
    """Runs functions in the background: on threads in production, on a seeded scheduler in tests."""

    def submit(self, step: Callable[[], T]) -> Pending[T]: ...

    def close(self) -> None:
        """Wait for the functions that are running, and stop."""
        ...


class Logger(Protocol):
    """The structured log: an event and its fields. No secrets, and never an entry for every record."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...
