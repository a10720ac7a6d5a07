"""Notes which record a task is retrying, and which partitions are stopped, for `pipeline status`: `RetriedRecords`.

At most one note per second is written for each task, and only for a record that has been retried for a while. So a
handler that usually succeeds at the second attempt causes no notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.core.names import TaskId
from pipeline.core.suggestions import counted
from pipeline.errors import PipelineError
from pipeline.ports import Clock
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.live_task import LiveTask
from pipeline.runtime.task.backlog import Retried
from pipeline.runtime.watchdog import AtWork

__all__ = ["RetriedRecords", "hang_note", "retry_note"]

INTERVAL_S = 1.0
NOTED_AFTER_S = 3.0
_REASON_CHARACTERS = 200
_SHOWN_REASONS = 3


class RetriedRecords:
    """Processing thread only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = 0.0
        self._noted: dict[TaskId, str] = {}

    def turn(self, tasks: Iterable[LiveTask], ownership: Ownership) -> None:
        """Write the changes, at most once per second. `tasks`: the live tasks."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + INTERVAL_S
        noted, self._noted = self._noted, {}
        for task in tasks:
            retried = task.retried
            waits = retried is not None and now_s - retried.since_s >= NOTED_AFTER_S
            retrying = retried is not None and waits
            problem = retry_note(retried) if retried is not None and waits else ""
            at = task.at_work
            if at is not None and at.ignores_cancellation:
                retrying, problem = False, hang_note(at)
            if task.stopped and task.poison is None:
                retrying, problem = False, stop_note(task.id, task.stopped)
            if problem != noted.get(task.id, ""):
                ownership.note_problem(task.id, task.applied.seq, problem, retrying=retrying)
            if problem:
                self._noted[task.id] = problem


def hang_note(at: AtWork) -> str:
    """The text about a call of an async handler that has not ended after its cancellation."""
    return (
        f"the call of {at.handler} for {at.place} exceeded timeout_s and ignores its cancellation: later records of "
        "its partition wait until it ends\n  -> follow runbooks/handler-hangs.md"
    )


def stop_note(task: TaskId, stopped: Mapping[int, PipelineError]) -> str:
    """The text about partitions of a task that are stopped while its others continue.

    It gives the reasons of the first ones, without their tracebacks, which are in the worker's log.
    """
    partitions = sorted(stopped)
    errors = [stopped[partition] for partition in partitions]
    reasons = [
        error.message.splitlines()[0].removeprefix(f"task {task}: ") for error in errors[:_SHOWN_REASONS]
    ]
    if len(errors) > _SHOWN_REASONS:
        reasons.append(f"and {len(errors) - _SHOWN_REASONS:,} more")
    one = len(partitions) == 1
    listed = f"{'partition' if one else 'partitions'} {', '.join(map(str, partitions))}"
    hint = next((error.hint for error in errors if error.hint), "follow runbooks/poison-record.md")
    return f"{listed} of its inputs {'is' if one else 'are'} stopped: {'; '.join(reasons)}\n  -> {hint}"


def retry_note(retried: Retried) -> str:
    """The text about a record that is retried."""
    reason = retried.reason.splitlines()[0] if retried.reason else "no reason given"
    if len(reason) > _REASON_CHARACTERS:
        reason = f"{reason[:_REASON_CHARACTERS]}..."
    tries = f"{counted(retried.failures, 'attempt')} failed"
    return (
        f"record {retried.topic}[{retried.partition}] offset {retried.offset} is retried: {tries}, "
        f"the last with {reason}\n"
        "  -> later records of its partition wait until it succeeds or its retries are used up; "
        "search the worker's log for record_retried"
    )
