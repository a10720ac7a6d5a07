"""`Background`: a slow read that requests share, so that none of them waits for long.

A read of Kafka can take as long as Kafka does not answer. It runs on a thread of its own, one at a time. Requests wait
for it for a bounded time, and only a bounded number of them do. So threads of the server always remain for the probes.

A result is shared for a second, and for four times as long as the read took. So however many clients ask, and however
large the app is, reads take at most a fifth of the time of one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.errors import PipelineError, UnreachableError

__all__ = ["Background"]

T = TypeVar("T")

FRESH_S = 1.0
PAUSE_FACTOR = 4  # how much longer than a read its result is shared


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    """A finished read. `at_s`: when it ended. `until_s`: how long it is shared."""

    at_s: float
    until_s: float
    value: T | None = None
    error: PipelineError | None = None


class Background(Generic[T]):
    """The last result of `read`.

    Args:
        what: What is read, for errors.
        read: May raise a PipelineError.
        wait_s: How long a request waits.
        waiters: How many requests may wait at the same time, for all reads that share it.
        monotonic_s: The clock.
        fresh_s: How long a result is shared; longer after a slow read.
        usable_s: A result that is not older is returned while the next read takes longer than `wait_s`, or if that read
            has failed.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], T],
        wait_s: float,
        waiters: threading.Semaphore,
        monotonic_s: Callable[[], float],
        fresh_s: float = FRESH_S,
        usable_s: float = 0.0,
    ) -> None:
        self._what = what
        self._read = read
        self._wait_s = wait_s
        self._now_s = monotonic_s
        self._fresh_s = fresh_s
        self._usable_s = usable_s
        self._waiters = waiters
        self._lock = threading.Lock()
        self._under_way: threading.Event | None = None
        self._last: _Read[T] | None = None
        self._usable: _Read[T] | None = None  # the last one without an error

    def value(self) -> T:
        """The result of a read, for threads that are not the server's: they are not waiters. Raises as `aged`."""
        return self._shared(counted=False)[0]

    def aged(self) -> tuple[T, float]:
        """(the result of a read that is still shared, or of an earlier one that is usable, the seconds since it ended).

        Raises:
            PipelineError: The read has failed.
            UnreachableError: It takes too long, or too many requests wait for it.
        """
        return self._shared(counted=True)

    def _shared(self, *, counted: bool) -> tuple[T, float]:
        asked_s = self._now_s()
        last = self._last
        if last is None or asked_s >= last.until_s:
            self._wait(self._begin(), counted=counted)
            last = self._last
        usable = self._usable
        if usable is not None and usable.at_s >= asked_s - self._usable_s:
            last = usable
        elif last is None or (asked_s >= last.until_s and last.at_s < asked_s):
            raise self._busy()
        if last.error is not None:
            raise last.error
        return last.value, max(0.0, self._now_s() - last.at_s)  # type: ignore[return-value]  # a value without an error

    def _begin(self) -> threading.Event:
        """Start a read unless one is in progress; the event is set when it has ended."""
        with self._lock:
            if self._under_way is None:
                done = self._under_way = threading.Event()
                threading.Thread(
                    target=self._run, args=(done,), daemon=True, name="pipeline-http-read"
                ).start()
            return self._under_way

    def _wait(self, done: threading.Event, *, counted: bool) -> None:
        if not counted:
            done.wait(self._wait_s)
            return
        if not self._waiters.acquire(blocking=False):
            raise self._busy()
        try:
            done.wait(self._wait_s)
        finally:
            self._waiters.release()

    def _run(self, done: threading.Event) -> None:
        value: T | None = None
        failure: PipelineError | None = None
        began_s = self._now_s()
        try:
            value = self._read()
        except PipelineError as error:
            failure = error
        except BaseException as error:  # noqa: BLE001 - a bug, which the answer reports
            failure = PipelineError(f"{self._what}: {type(error).__name__}: {error}")
        with self._lock:
            at_s = self._now_s()
            pause_s = max(self._fresh_s, PAUSE_FACTOR * (at_s - began_s)) if failure is None else FRESH_S
            self._last = _Read(at_s, at_s + pause_s, value, failure)
            if failure is None:
                self._usable = self._last
            self._under_way = None
        done.set()

    def _busy(self) -> UnreachableError:
        return UnreachableError(f"{self._what} is still being read", hint="try again in a moment")
