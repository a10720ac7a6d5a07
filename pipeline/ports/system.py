"""The ports to the process: time, randomness, background work and the log.

All loops that wait use `Deadline` or `Attempts`. `Deadline` limits polling by time:

    deadline = Deadline(clock, 10.0, pause_s=0.05)
    while not is_there():
        if not deadline.pause():
            raise FatalTaskError("it is not there after 10 s")

To retry a call that fails:

    while True:
        try:
            return ask()
        except RetriableError:
            if not deadline.pause():
                raise

The condition is always checked at least once, and once more after the last pause. The clock is read only after a
check that failed.

`Attempts` limits a step that may take long itself, such as a restore, by its number of attempts. With a time-out, a
restore of ten minutes that is overtaken once would not be repeated.

    attempts = Attempts(clock, 5, growing(0.1, 2.0))
    while True:
        try:
            return restore()
        except RetriableError:
            if not attempts.pause():
                raise

Every log event names a task, a record or an error by the same fields (`task_fields`, `record_fields`,
`error_fields`). So one query finds all events of a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from pipeline.core.names import TaskId
from pipeline.core.records import Record
from pipeline.errors import PipelineError

__all__ = [
    "Attempts",
    "Clock",
    "Deadline",
    "Executor",
    "Logger",
    "Pending",
    "Random",
    "SystemClock",
    "error_fields",
    "growing",
    "record_fields",
    "task_fields",
]

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


class Deadline:
    """A time-out that starts now, and the pauses until it expires. For one wait, from one thread.

    Args:
        clock: the source of time.
        timeout_s: seconds from now; 0: the condition is checked once.
        pause_s: seconds between two attempts, or a function that returns them, for random pauses.
    """

    def __init__(self, clock: Clock, timeout_s: float, pause_s: float | Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._began_s = clock.monotonic_s()
        self._timeout_s = timeout_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic_s() - self._began_s

    def has_passed(self, timeout_s: float | None = None) -> bool:
        """Whether the time-out has expired. `timeout_s`: a shorter time-out to check instead."""
        allowed_s = self._timeout_s if timeout_s is None else timeout_s
        return self.elapsed_s >= allowed_s

    def pause(self, timeout_s: float | None = None) -> bool:
        """Sleep until the next attempt. Returns False if the time-out has expired, else True."""
        if self.has_passed(timeout_s):
            return False
        self._clock.sleep(self._pause_s() if callable(self._pause_s) else self._pause_s)
        return True


class Attempts:
    """A limited number of attempts, and the pauses between them. For one wait, from one thread.

    Args:
        clock: pauses.
        limit: the number of attempts, from 1.
        pause_s: seconds between two attempts, or a function that returns them, for random or growing pauses.
    """

    def __init__(self, clock: Clock, limit: int, pause_s: float | Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = pause_s
        self._left = limit

    def pause(self) -> bool:
        """Sleep until the next attempt. Returns False if the last attempt was made, else True."""
        self._left -= 1
        if self._left <= 0:
            return False
        self._clock.sleep(self._pause_s() if callable(self._pause_s) else self._pause_s)
        return True


def growing(first_s: float, longest_s: float) -> Callable[[], float]:
    """Pauses in seconds: `first_s`, then twice as long each time, up to `longest_s`."""
    next_s = first_s

    def pause_s() -> float:
        nonlocal next_s
        this_s, next_s = next_s, min(next_s * 2, longest_s)
        return this_s

    return pause_s


def task_fields(task: TaskId, partitions: Iterable[int] | None = None) -> dict[str, Any]:
    """The fields that name a task: `app`, `group`, `task` (a number) and, if they are given, `partitions` (a list).

    The log of a worker adds the partitions itself.

    Example:
        >>> task_fields(TaskId("shop", "main", 3), [3, 7])
        {'app': 'shop', 'group': 'main', 'task': 3, 'partitions': [3, 7]}
    """
    fields: dict[str, Any] = {"app": task.app, "group": task.group, "task": task.number}
    if partitions is not None:
        fields["partitions"] = list(partitions)
    return fields


def record_fields(record: Record) -> dict[str, Any]:
    """The fields that name a record: `topic`, `partition` and `offset`."""
    return {"topic": record.topic(), "partition": record.partition(), "offset": record.offset()}


def error_fields(error: PipelineError, *, hint: str | None = None) -> dict[str, Any]:
    """The fields that describe an error: `error` (its class), `message`, and `hint` if there is a next step.

    Args:
        error: The error.
        hint: The next step, if it differs from that of the error.
    """
    fields: dict[str, Any] = {"error": type(error).__name__, "message": error.message}
    advice = hint or error.hint
    if advice:
        fields["hint"] = advice
    return fields
