"""Runs handlers over the records of one task, and undoes all effects of a record whose handler raises.

Each table write is recorded in the undo log, and each output is in the open list. If a record (or batch) raises, its
writes and outputs are removed before it is retried or its policy is applied. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.api.bindings import Binding, OnError
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Event, RuntimeBatch, event_type
from pipeline.api.group import DeclaredGroup
from pipeline.api.table import TaskOverlay
from pipeline.core.headers import UnreadableHeadersError
from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError, HandlerError, PipelineError
from pipeline.ports import Logger, Record, record_fields, task_fields
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.dedup import DedupTable
from pipeline.runtime.task.handler_errors import (
    ENDING,
    LEAVING,
    error_place,
    error_text,
    handler_name,
    plainly,
    user_error_fields,
)
from pipeline.runtime.task.prefetch import Prefetch
from pipeline.runtime.task.refused_outputs import RefusedOutputError
from pipeline.runtime.watchdog import AtWork

__all__ = ["PoisonError", "Processor", "Rejected", "RetryError"]


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


@dataclass(slots=True)
class Rejected:
    """Records that a policy skipped. `retried`: failed attempts that were followed by another."""

    skipped: int = 0
    dead_lettered: int = 0
    retried: int = 0


class Processor:
    """The handlers of one group, bound to one task's tables and outputs."""

    def __init__(
        self,
        task: TaskId,
        group: DeclaredGroup,
        context: RuntimeContext,
        overlay: TaskOverlay,
        letters: DeadLetters,
        log: Logger,
        dedup: Mapping[str, DedupTable],
        topic_ids: Mapping[str, str],
    ) -> None:
        self._task = task
        self._context = context
        self._overlay = overlay
        self._undo = overlay.undo
        self._log = log
        self._letters = letters
        self._dedup = dedup  # by name of the topic
        self._seen: DedupTable | None = None  # of the current topic
        self._routes: dict[str, tuple[DeclaredTopic[Any, Any], list[Binding]]] = {
            topic.name: (topic, [b for b in group.bindings if b.topic is topic]) for topic in group.inputs
        }
        self._events = {
            topic.name: event_type(task.app, task.group, topic_ids[topic.name]) for topic in group.inputs
        }
        self._ahead: Mapping[str, Prefetch] = {
            topic.name: Prefetch(topic, context.tables) for topic in group.inputs
        }
        self._make: type[Event[Any, Any]] = Event  # of the current topic
        self.rejected = Rejected()
        self._running: tuple[list[Binding], int] | None = None  # handlers, and records in one call of them
        self._failures = 0

    @property
    def at_work(self) -> AtWork | None:
        """The current record and its handlers; None between batches. Any thread may call this."""
        running, record = self._running, self._context.message
        if running is None or record is None:
            return None
        bindings, count = running
        return AtWork(self._task, [handler_name(binding) for binding in bindings], record, count)

    def process(
        self, topic_name: str, records: Sequence[Record], failures: int = 0, topic_id: str = ""
    ) -> None:
        """Run the handlers of a topic over its records, in order.

        `failures`: the earlier failures of the record, which is then the only one. `topic_id`: the id of the topic that
        contained the records, if it is not the current one.
        Raises PoisonError, RetryError (in both cases everything before the record is processed), CorruptStateError.
        """
        topic, bindings = self._routes[topic_name]
        self._failures = failures
        self._make = (
            event_type(self._task.app, self._task.group, topic_id) if topic_id else self._events[topic_name]
        )
        self._seen = seen = self._dedup.get(topic_name)
        try:
            if bindings[0].batch:
                self._run_batch(topic, bindings[0], records)
            else:
                self._context.message = None  # the last record of the previous batch is finished
                self._running = bindings, 1
                self._ahead[topic_name].load(records)
                if seen is None:
                    self._run_records(topic, bindings, iter(records))
                else:
                    reject = partial(self._reject, topic, bindings[0])
                    self._run_records(topic, bindings, seen.unique(records, reject))
        finally:
            self._running = None

    def use(self, dedup: Mapping[str, DedupTable], ahead: Mapping[str, Prefetch]) -> None:
        """From now on, drop duplicates and read rows ahead by these: those of the partition of the next records."""
        self._dedup, self._ahead = dedup, ahead

    def handles(self, topic_name: str) -> bool:
        """Whether the topic has handlers."""
        return topic_name in self._routes

    def give_back(self, record: Record, why: str) -> None:
        """Make a record without a handler a dead letter, so that it is not lost."""
        self.rejected.dead_lettered += 1
        missing = LookupError(why)
        self._context.outputs.append(self._letters.write(record, "", missing, 1))
        self._letters.wrote()
        self._log.warning(
            "record_rejected",
            policy="dead_letter",
            **task_fields(self._task),
            **record_fields(record),
            **user_error_fields(missing),
        )

    def condemn(self, topic_name: str, record: Record, error: NativeCrash | RefusedOutputError) -> None:
        """Apply the policy to a record that crashes the process, or whose outputs are refused. No handler is called.

        It is unknown which of the topic's handlers caused it, so the strictest policy applies. Raises PoisonError.
        """
        topic, bindings = self._routes[topic_name]
        strictest = min(bindings, key=lambda binding: _STRICTNESS.index(binding.on_error))
        self._failures = 0
        self._reject(topic, strictest, record, error)

    def _run_records(
        self, topic: DeclaredTopic[Any, Any], bindings: list[Binding], remaining: Iterator[Record]
    ) -> None:
        context, undo, outputs = self._context, self._undo, self._context.outputs
        decode_key, decode_value = topic.key.decode, context.value_decoder(topic)
        single = bindings[0].function if len(bindings) == 1 else None
        binding = bindings[0]
        make = self._make
        # A handler may change a mutable value, so each handler gets its own copy.
        fresh = not topic.value.immutable
        mark = len(outputs)
        while True:
            try:
                if single is not None:
                    for record in remaining:
                        context.message = record
                        mark = len(outputs)
                        single(make(decode_key(record.key()), decode_value(record.value()), record), context)
                        undo.clear()
                else:
                    for record in remaining:
                        context.message = record
                        mark = len(outputs)
                        binding = bindings[0]
                        event: Event[Any, Any] = make(
                            decode_key(record.key()), decode_value(record.value()), record
                        )
                        for binding in bindings:
                            if fresh and binding is not bindings[0]:
                                event = make(event.key, decode_value(record.value()), record)
                            binding.function(event, context)
                        undo.clear()
            except (*ENDING, CorruptStateError, PoisonError, RetryError):
                raise
            except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its record
                self._take_back(mark)
                if self._seen is not None:
                    self._seen.disown()
                self._reject(topic, binding, context.message, error)
            else:
                return

    def _run_batch(self, topic: DeclaredTopic[Any, Any], binding: Binding, records: Sequence[Record]) -> None:
        if not records:
            return
        context, seen, unique = self._context, self._seen, records
        mark = len(context.outputs)
        context.message = records[0]
        self._running = [binding], len(records)
        try:
            if seen is not None:
                admitted = seen.admit(records)
                unique = admitted.records
            if unique:
                context.message = max(unique, key=_timestamp)
                keys = [topic.key.decode(record.key()) for record in unique]
                values = [topic.value.read(record) for record in unique]
                binding.function(RuntimeBatch(unique, keys, values, self._make), context)
                self._undo.clear()
            if seen is not None:
                seen.settle(admitted)
        except (*ENDING, CorruptStateError):
            raise
        except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its batch
            self._take_back(mark)
            if len(records) == 1:
                self._reject(topic, binding, records[0], error)
                return
            middle = len(records) // 2
            self._run_batch(topic, binding, records[:middle])
            self._run_batch(topic, binding, records[middle:])

    def _take_back(self, mark: int) -> None:
        """Undo the writes and outputs of the current record."""
        self._overlay.take_back()
        del self._context.outputs[mark:]

    def _reject(
        self, topic: DeclaredTopic[Any, Any], binding: Binding, record: Record, error: BaseException
    ) -> None:
        """Request a retry, or apply the policy. Raises RetryError, PoisonError."""
        error = plainly(error, topic, record)
        # A PipelineError is a mistake of the program. A handler that exits means the worker, not its record.
        crash = error if isinstance(error, NativeCrash) else None
        final = isinstance(error, (PipelineError, *LEAVING)) or (crash is not None and not crash.proven)
        # A replay that fails becomes a dead letter again, whatever the current policy of its handler is.
        again = getattr(record, "replay", 0) > 0
        policy: OnError = "stop" if final else "dead_letter" if again else binding.on_error
        reason = error_text(error)
        failures = self._failures + 1
        hopeless = final or isinstance(error, UnreadableHeadersError | NativeCrash | RefusedOutputError)
        if failures <= binding.retries and not hopeless and self._was_called(topic, record):
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
            raise RetryError(record.offset(), failures, wait_s, reason) from error
        if policy == "stop":
            raise self._poison(record, binding, error, reason)
        if policy == "skip":
            self.rejected.skipped += 1
        else:
            letter = self._letters.write(record, handler_name(binding), error, failures)
            refusal = self._letters.refusal(letter)
            if refusal is not None:
                raise self._poison(record, binding, error, f"{reason}; and {refusal}")
            self.rejected.dead_lettered += 1
            self._context.outputs.append(letter)
            self._letters.wrote()
        self._log.warning(
            "record_rejected",
            policy=policy,
            **task_fields(self._task),
            **record_fields(record),
            **user_error_fields(error),
        )

    def _was_called(self, topic: DeclaredTopic[Any, Any], record: Record) -> bool:
        """Whether a handler failed. Undecodable bytes or a missing id fail at every attempt."""
        try:
            topic.key.decode(record.key())
            topic.value.read(record)
        except ENDING:
            raise
        except BaseException:  # noqa: BLE001 - a user's codec may raise anything
            return False
        return self._seen is None or self._seen.identifies(record)

    def _poison(self, record: Record, binding: Binding, error: BaseException, reason: str) -> PoisonError:
        where = f"{record.topic()}[{record.partition()}] offset {record.offset()}"
        poison = PoisonError(
            record.offset(),
            HandlerError(
                f"task {self._task}: the record {where} cannot be processed by {handler_name(binding)}: {reason}\n"
                f"{error_place(error)}",
                hint=_advice(error),
            ),
        )
        poison.__cause__ = error
        return poison


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
_timestamp: Callable[[Record], int] = lambda record: record.timestamp()[1]  # noqa: E731
