"""Runs handlers over the records of one task, and undoes all effects of a record whose handler raises.

Each table write is recorded in the undo log, and each output is in the open list. If a record (or batch) raises, its
writes and outputs are removed before it is retried or its policy is applied. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.api.bindings import Binding
from pipeline.api.context import RuntimeContext
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Event, RuntimeBatch, event_type
from pipeline.api.group import DeclaredGroup
from pipeline.api.table import TaskOverlay
from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError
from pipeline.ports import Logger, Record
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.dedup import DedupTable
from pipeline.runtime.task.handler_errors import (
    ENDING,
    handler_name,
    plainly,
)
from pipeline.runtime.task.prefetch import Prefetch
from pipeline.runtime.task.record_errors import PoisonError, RecordErrors, Rejected, RetryError, strictest
from pipeline.runtime.task.refused_outputs import RefusedOutputError
from pipeline.runtime.watchdog import AtWork

__all__ = ["Processor"]


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
        self._errors = RecordErrors(task, context, letters, log)
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
        self._running: tuple[list[Binding], int] | None = None  # handlers, and records in one call of them
        self._failures = 0

    @property
    def errors(self) -> RecordErrors:
        """What decides about failed records."""
        return self._errors

    @property
    def rejected(self) -> Rejected:
        return self._errors.rejected

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
        self._errors.give_back(record, why)

    def condemn(self, topic_name: str, record: Record, error: NativeCrash | RefusedOutputError) -> None:
        """Apply the policy to a record that crashes the process, or whose outputs are refused. No handler is called.

        It is unknown which of the topic's handlers caused it, so the strictest policy applies. Raises PoisonError.
        """
        topic, bindings = self._routes[topic_name]
        self._failures = 0
        self._reject(topic, strictest(bindings), record, error)

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
        failures = self._failures + 1
        retry = self._errors.retry(topic, binding, record, error, failures, self._seen)
        if retry is not None:
            raise retry from error
        self._errors.settle(binding, record, error, failures)


_timestamp: Callable[[Record], int] = lambda record: record.timestamp()[1]  # noqa: E731
