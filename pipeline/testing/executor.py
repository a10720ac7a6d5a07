"""Executors without threads: `InlineExecutor`, `DeferredExecutor`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.errors import InvariantError

__all__ = ["DeferredExecutor", "InlineExecutor"]

T = TypeVar("T")


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
        self._waiting.pop(self._random.randrange(len(self._waiting))).run()
        return True

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
        while not pending.done():
            if not self.run_one():
                raise InvariantError("the result of a dropped step is needed")
