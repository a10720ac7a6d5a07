"""Steps beside the processing thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Executor", "Pending"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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
