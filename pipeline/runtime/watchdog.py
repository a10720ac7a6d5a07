"""Detects a handler that does not return: `Watchdog`, which checks from another thread.

The cost for processing is two stores per batch. The context holds the current record anyway; if a later check sees the
same record, its handler has not returned. Nothing is interrupted, because Python code in a thread cannot be: it ends by
itself or with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.core.names import TaskId
from pipeline.ports import Clock, Logger, Record, record_fields, task_fields

__all__ = ["AtWork", "Watchdog"]


@dataclass(frozen=True, slots=True)
class AtWork:
    """The current work of the processing thread: a topic's handlers, and the first unfinished record.

    `ignores_cancellation`: the call of an async handler timed out and has not ended since. The thread is free.
    """

    task: TaskId
    handlers: Sequence[str]
    record: Record
    records: int
    ignores_cancellation: bool = False

    @property
    def handler(self) -> str:
        return ", ".join(self.handlers)

    @property
    def place(self) -> str:
        return f"{self.record.topic()}[{self.record.partition()}] offset {self.record.offset()}"


class Watchdog:
    """Warns if a handler has worked on one record, or one batch, for `warn_after_s`, and again each time that doubles.

    `at_work`: returns the current work of the processing thread; None outside of handlers. `stack`: returns its stack.
    `note`: called with each warning: the work, and the time since when.
    """

    def __init__(
        self,
        at_work: Callable[[], AtWork | None],
        stack: Callable[[], str],
        note: Callable[[AtWork, str], None],
        warn_after_s: float,
        clock: Clock,
        log: Logger,
    ) -> None:
        self._at_work = at_work
        self._stack = stack
        self._note = note
        self._warn_after_s = warn_after_s
        self._clock = clock
        self._log = log
        self._seen: AtWork | None = None
        self._since_s = 0.0
        self._next_s = 0.0
        self._warned = False

    @property
    def interval_s(self) -> float:
        """The interval of checks, which is also the maximum delay of a warning."""
        return min(1.0, self._warn_after_s / 4)

    def check(self) -> None:
        """Check once. Seconds are counted from the first check that found the record."""
        now = self._clock.monotonic_s()
        found = self._at_work()
        if self._seen is None or found is None or found.record is not self._seen.record:
            self._returned(now)
            self._seen, self._since_s, self._next_s = found, now, now + self._warn_after_s
        elif now >= self._next_s:
            seconds = now - self._since_s
            self._next_s = now + max(seconds, self._warn_after_s)
            self._warned = True
            self._log.warning(
                "handler_has_not_returned",
                **task_fields(found.task),
                handler=found.handler,
                **record_fields(found.record),
                records=found.records,
                running_s=round(seconds, 1),
                hint=_CANCELLED_HINT if found.ignores_cancellation else _BLOCKED_HINT,
                stack=self._stack(),
            )
            since = datetime.fromtimestamp(self._clock.wall_ms() / 1000 - seconds, UTC)
            self._note(found, f"{since:%Y-%m-%d %H:%M:%S} UTC")

    def _returned(self, now: float) -> None:
        if self._warned and self._seen is not None:
            self._log.info(
                "handler_returned",
                **task_fields(self._seen.task),
                handler=self._seen.handler,
                **record_fields(self._seen.record),
                running_s=round(now - self._since_s, 1),
            )
        self._warned = False


_BLOCKED_HINT = (
    "all tasks of this process wait until the handler returns. To end the worker, send SIGTERM: it exits after "
    "stop_timeout_s and processes the record again after a restart: runbooks/handler-hangs.md"
)
_CANCELLED_HINT = (
    "the call of this async handler was cancelled after timeout_s and continues: records behind it in its partition "
    "are not committed. Do not catch asyncio.CancelledError in the handler: runbooks/handler-hangs.md"
)
