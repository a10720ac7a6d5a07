"""Decides what happens with a record whose processing raised: `RecordErrors`, for one task.

It is tried again while retries are left. Then the policy of its handler applies: it stops its partition, is skipped, or
becomes a dead letter of the open commit. Undoing its writes and outputs is up to the caller. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.api.bindings import Binding, OnError
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTopic
from pipeline.core.event_time import EventTimeError
from pipeline.core.headers import UnreadableHeadersError
from pipeline.core.names import TaskId
from pipeline.errors import FatalTaskError, HandlerError, PipelineError
from pipeline.ports import Logger, Record, record_fields, task_fields
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.dedup import DedupTable
from pipeline.runtime.task.handler_errors import (
    ENDING,
    LEAVING,
    error_place,
    error_text,
    function_place,
    handler_name,
    user_error_fields,
)
from pipeline.runtime.task.refused_outputs import RefusedOutputError

__all__ = [
    "DueStepsError",
    "PoisonError",
    "RecordErrors",
    "Rejected",
    "RetryError",
    "TimersDueError",
    "strictest",
]


class PoisonError(Exception):
    """A record that stops its task. `offset`: its offset; everything before it in its topic is processed."""

    def __init__(self, offset: int, error: PipelineError) -> None:
        super().__init__(error.message)
        self.offset = offset
        self.error = error


class RetryError(Exception):
    """A record to retry in `wait_s`. `offset`: as in PoisonError. `failures`: the number of failures so far."""

    def __init__(self, offset: int, failures: int, wait_s: float, reason: str) -> None:
        super().__init__(offset)
        self.offset = offset
        self.failures = failures
        self.wait_s = wait_s
        self.reason = reason


class DueStepsError(FatalTaskError):
    """The next due step cannot be read, such as from a row that a codec does not decode. It belongs to no step."""


class TimersDueError(Exception):
    """A record that must wait until timers are fired. `offset`: as in PoisonError."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


@dataclass(slots=True)
class Rejected:
    """Records that a policy skipped. `retried`: failed attempts that were followed by another."""

    skipped: int = 0
    dead_lettered: int = 0
    retried: int = 0


class RecordErrors:
    """Dead letters become outputs of `context`."""

    def __init__(self, task: TaskId, context: RuntimeContext, letters: DeadLetters, log: Logger) -> None:
        self._task = task
        self._context = context
        self._letters = letters
        self._log = log
        self.rejected = Rejected()

    def retry(
        self,
        topic: DeclaredTopic[Any, Any],
        binding: Binding,
        record: Record,
        error: BaseException,
        failures: int,
        seen: DedupTable | None = None,
    ) -> RetryError | None:
        """The retry that is due after this failure; None if no other attempt would help, or none is left.

        `failures`: the number of failures of the record, with this one. `seen`: the ids of the topic, if it has any.
        """
        hopeless = isinstance(error, UnreadableHeadersError | NativeCrash | RefusedOutputError)
        if failures > binding.retries or hopeless or _is_final(error):
            return None
        if not _was_called(topic, record, seen):
            return None
        wait_s = binding.retry_wait_s(failures)
        self.rejected.retried += 1
        self._log.warning(
            "record_retried",
            **task_fields(self._task),
            **record_fields(record),
            failures=failures,
            wait_s=wait_s,
            **user_error_fields(error),
        )
        return RetryError(record.offset(), failures, wait_s, error_text(error))

    def settle(self, binding: Binding, record: Record, error: BaseException, failures: int) -> None:
        """Apply the policy. Raises PoisonError."""
        # A replay that fails becomes a dead letter again, whatever the current policy of its handler is.
        again = getattr(record, "replay", 0) > 0
        policy: OnError = "stop" if _is_final(error) else "dead_letter" if again else binding.on_error
        reason = error_text(error)
        if policy == "stop":
            raise self._poison(record, binding, error, reason)
        if policy == "skip":
            self.rejected.skipped += 1
        else:
            letter = self._letters.write(record, handler_name(binding), error, failures)
            refusal = self._letters.refusal(letter)
            if refusal is not None:
                raise self._poison(record, binding, error, f"{reason}; and {refusal}")
            self._send(letter)
        self._note(policy, record, error)

    def give_back(self, record: Record, why: str) -> None:
        """Make a record without a handler a dead letter, so that it is not lost."""
        missing = LookupError(why)
        self._send(self._letters.write(record, "", missing, 1))
        self._note("dead_letter", record, missing)

    def _send(self, letter: Any) -> None:
        self.rejected.dead_lettered += 1
        self._context.outputs.append(letter)
        self._letters.wrote()

    def _note(self, policy: OnError, record: Record, error: BaseException) -> None:
        self._log.warning(
            "record_rejected",
            policy=policy,
            **task_fields(self._task),
            **record_fields(record),
            **user_error_fields(error),
        )

    def _poison(self, record: Record, binding: Binding, error: BaseException, reason: str) -> PoisonError:
        where = f"{record.topic()}[{record.partition()}] offset {record.offset()}"
        if isinstance(error, EventTimeError):  # raised by a check of this package, whose lines say nothing
            time_of = binding.topic.event_time_ms
            place = function_place(time_of) if time_of is not None else ""
        else:
            place = error_place(error)
        poison = PoisonError(
            record.offset(),
            HandlerError(
                f"task {self._task}: the record {where} cannot be processed by {handler_name(binding)}: {reason}"
                + (f"\n{place}" if place else ""),
                hint=_advice(error),
            ),
        )
        poison.__cause__ = error
        return poison


def strictest(bindings: Sequence[Binding]) -> Binding:
    """The handler with the strictest policy, for a record of which it is unknown whose error it is."""
    return min(bindings, key=lambda binding: _STRICTNESS.index(binding.on_error))


def _is_final(error: BaseException) -> bool:
    """Whether the error stops the task under every policy.

    A PipelineError is a mistake of the program. A handler that exits means the worker, not its record.
    """
    crash = error if isinstance(error, NativeCrash) else None
    return isinstance(error, (PipelineError, *LEAVING)) or (crash is not None and not crash.proven)


def _was_called(topic: DeclaredTopic[Any, Any], record: Record, seen: DedupTable | None) -> bool:
    """Whether a handler failed. Undecodable bytes or a missing id fail at every attempt."""
    try:
        topic.key.decode(record.key())
        topic.value.read(record)
    except ENDING:
        raise
    except BaseException:  # noqa: BLE001 - a user's codec may raise anything
        return False
    return seen is None or seen.identifies(record)


def _advice(error: BaseException) -> str:
    """The next step. A PipelineError has its own hint: the app is wrong, and no policy skips it."""
    if isinstance(error, NativeCrash):
        return _CRASH_HINT
    if isinstance(error, PipelineError) and error.hint:
        return f"{error.hint}. Then start the worker again: it continues from this record"
    return _HINT


_STRICTNESS: Sequence[OnError] = ("stop", "dead_letter", "skip")
_HINT = (
    "fix the handler or the record and start the worker again; it continues from this record. "
    "on_error='skip' or 'dead_letter' lets the task continue after such records: runbooks/poison-record.md"
)
_CRASH_HINT = (
    "fix the handler or the library that it calls and start the worker again: it handles this record once more. "
    "on_error='skip' or 'dead_letter' lets the task continue after such records: runbooks/native-crash.md"
)
