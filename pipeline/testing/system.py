"""The clock, random numbers and executors that a test controls. The executors have no threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.errors import InvariantError

__all__ = ["DeferredExecutor", "InlineExecutor", "ManualClock", "SeededRandom"]

T = TypeVar("T")


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


class _PendingStep(Generic[T]):
    """A submitted step, and its result or its error after it has run."""

    def __init__(self, step: Callable[[], T], run_until: Callable[[_PendingStep[T]], None]) -> None:
        self._step = step
        self._run_until = run_until
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._step()
        except BaseException as error:  # noqa: BLE001 (raised by result())
            self._error = error
        self._done = True

    def done(self) -> bool:
        return self._done

    def result(self) -> T:
        self._run_until(self)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set by `run`


class InlineExecutor:
    """Runs every step to its end when it is submitted."""

    def submit(self, step: Callable[[], T]) -> _PendingStep[T]:
        pending = _PendingStep(step, lambda _pending: None)
        pending.run()
        return pending

    def close(self) -> None:
        """Do nothing: every step has run."""


class DeferredExecutor:
    """Runs submitted steps only on request, or when a result is needed. The seed determines their order."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 (a schedule, never a secret)
        self._waiting: list[_PendingStep[object]] = []
        self._depth = 0  # of the steps that are running

    def submit(self, step: Callable[[], T]) -> _PendingStep[T]:
        pending = _PendingStep(step, self._run_until)
        self._waiting.append(pending)  # type: ignore[arg-type]  # only run and done are used from the list
        return pending

    def waiting(self) -> int:
        return len(self._waiting)

    def run_one(self) -> bool:
        """Run one waiting step. Returns False if there is none."""
        if not self._waiting:
            return False
        self._run(self._random.randrange(len(self._waiting)))
        return True

    def _run(self, index: int) -> None:
        step = self._waiting.pop(index)
        self._depth += 1
        try:
            step.run()
        finally:
            self._depth -= 1

    def run_all(self) -> None:
        """Run all waiting steps, and those that they submit."""
        while self.run_one():
            pass

    def drop(self) -> None:
        """Forget the waiting steps, as if the process was killed."""
        self._waiting.clear()

    def close(self) -> None:
        self.run_all()

    def _run_until(self, pending: _PendingStep[T]) -> None:
        """Run steps in any order until this one is done.

        A step that waits for another one runs that one only: any other might wait for the first, which cannot end here.
        """
        while not pending.done():
            if self._depth and pending in self._waiting:
                self._run(self._waiting.index(pending))  # type: ignore[arg-type]  # as in `submit`
            elif self._depth or not self.run_one():
                raise InvariantError("the result of a dropped step is needed")
