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
from pipeline.api.declarations import DeclaredTopic, StepTopic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.event import Event, RuntimeBatch, event_type
from pipeline.api.table import TaskOverlay
from pipeline.core.event_time import checked_time
from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError
from pipeline.ports import Logger, Record
from pipeline.runtime.crashes import NativeCrash
from pipeline.runtime.task.dead_letters import DeadLetters
from pipeline.runtime.task.dedup import DedupTable
from pipeline.runtime.task.event_times import EventTimes
from pipeline.runtime.task.handler_errors import (
    ENDING,
    handler_name,
    plainly,
)
from pipeline.runtime.task.prefetch import Prefetch
from pipeline.runtime.task.record_errors import (
    DueStepsError,
    PoisonError,
    RecordErrors,
    Rejected,
    RetryError,
    TimersDueError,
    strictest,
)
from pipeline.runtime.task.refused_outputs import RefusedOutputError
from pipeline.runtime.watchdog import AtWork

__all__ = ["Processor"]


class Processor:
    """The handlers of one group, bound to one task's tables and outputs.

    Attributes:
        fires_timers: Whether the group has timers, for which records wait.
    """

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
        self._times: EventTimes | None = None  # of the current partition
        self._routes: dict[str, tuple[DeclaredTopic[Any, Any], list[Binding]]] = {
            topic.name: (topic, [b for b in group.bindings if b.topic is topic]) for topic in group.inputs
        }
        self._events: dict[str, type[Any]] = {
            topic.name: event_type(task.app, task.group, topic_ids[topic.name]) for topic in group.inputs
        }
        for name, binding in group.steps.items():
            self._routes[name] = binding.topic, [binding]
            if isinstance(binding.topic, StepTopic):
                self._events[name] = binding.topic.given(task.app, task.group)
        self._ahead: Mapping[str, Prefetch] = {
            topic.name: Prefetch(topic, context.tables) for topic in group.inputs
        }
        self._make: type[Any] = Event  # of the current topic
        self._running: tuple[list[Binding], int] | None = None  # handlers, and records in one call of them
        self._failures = 0
        self.fires_timers = bool(group.timer_sets)

    @property
    def task(self) -> TaskId:
        return self._task

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
        Raises PoisonError, RetryError, TimersDueError (in each case everything before the record is processed), and
        CorruptStateError.
        """
        topic, bindings = self._routes[topic_name]
        ahead = self._ahead.get(topic_name)
        if ahead is None:  # a replay of a due step
            self.process_steps(topic_name, iter(records), failures)
            return
        self._failures = failures
        self._make = (
            event_type(self._task.app, self._task.group, topic_id) if topic_id else self._events[topic_name]
        )
        self._seen = seen = self._dedup.get(topic_name)
        times = self._times
        if times is not None:
            times.begin(topic_name, replayed=getattr(records[0], "replay", 0) > 0)
            self._context.time_of = times.reader(topic)
        self._context.firing = False
        try:
            if bindings[0].batch:
                self._run_batch(topic, bindings[0], records)
            else:
                self._context.message = None  # the last record of the previous batch is finished
                self._running = bindings, 1
                ahead.load(records)
                first = times.until_timer(records) if times is not None and self.fires_timers else None
                remaining = iter(records if first is None else first)
                if seen is not None:
                    remaining = seen.unique(records, partial(self._reject, topic, bindings[0]), first)
                if times is None:
                    self._run_records(topic, bindings, remaining)
                else:
                    self._run_timed(topic, bindings, remaining, times)
                if first is not None and first.next is not None:
                    raise TimersDueError(first.next.offset())
        finally:
            self._running = None

    def process_steps(self, name: str, steps: Iterator[Record], failures: int = 0) -> None:
        """Run the function of a pseudo-topic over due steps. Taking the next one means that the last one is finished.

        Arguments and errors as in `process`. An error of `steps` itself must be a CorruptStateError or a DueStepsError:
        any other one is taken for that of the last step.
        """
        topic, bindings = self._routes[name]
        self._failures, self._make, self._seen = failures, self._events[name], None
        self._context.message, self._context.event_ms, self._context.firing = None, None, True
        self._running = bindings, 1
        try:
            time_of = topic.time_of if isinstance(topic, StepTopic) else None
            self._run_records(topic, bindings, steps if time_of is None else self._timed(steps, time_of))
        finally:
            self._running = None

    def _timed(self, steps: Iterator[Record], time_of: Callable[[Record], int]) -> Iterator[Record]:
        """Steps whose outputs have the event time of a record."""
        for step in steps:
            self._context.message = step  # an error of `time_of` belongs to it
            self._context.event_ms = time_of(step)
            yield step

    def keep(self) -> None:
        """What was written since the last record or step stays, whatever the next one does."""
        self._undo.clear()

    def use(
        self,
        dedup: Mapping[str, DedupTable],
        ahead: Mapping[str, Prefetch],
        times: EventTimes | None = None,
    ) -> None:
        """From now on, use these for duplicates, rows to read ahead and event times: those of the next partition."""
        self._dedup, self._ahead, self._times = dedup, ahead, times

    @property
    def timer_due(self) -> bool:
        """Whether records of the current partition must wait until timers are fired."""
        return self.fires_timers and self._times is not None and self._times.clock.timer_due

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
        self._overlay.take_back()  # what a due step has written before its function
        self._context.message = record  # no handler was called that would have set it
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
            except (*ENDING, CorruptStateError, DueStepsError, PoisonError, RetryError):
                raise
            except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its record
                self._take_back(mark)
                if self._seen is not None:
                    self._seen.disown()
                self._reject(topic, binding, context.message, error)
            else:
                return

    def _run_timed(  # noqa: PLR0912 - one branch for each kind of topic and handlers
        self,
        topic: DeclaredTopic[Any, Any],
        bindings: list[Binding],
        remaining: Iterator[Record],
        times: EventTimes,
    ) -> None:
        """`_run_records` in a group that keeps a clock. A record moves it once it has succeeded or was skipped."""
        context, undo, outputs = self._context, self._undo, self._context.outputs
        decode_key, decode_value, time_of = (
            topic.key.decode,
            context.value_decoder(topic),
            topic.event_time_ms,
        )
        binding, make, latest_ms, newest_ms = bindings[0], self._make, times.latest_ms, times.newest_ms
        single = binding.function if len(bindings) == 1 else None
        # A handler may change a mutable value, so each handler gets its own copy.
        fresh = not topic.value.immutable
        mark, time_ms = len(outputs), -1
        while True:
            try:
                for record in remaining:
                    context.message = record
                    mark = len(outputs)
                    time_ms = -1
                    binding = bindings[0]
                    event = make(decode_key(record.key()), decode_value(record.value()), record)
                    if time_of is None:
                        found = record.timestamp()[1]
                        if not 0 <= found <= latest_ms:
                            checked_time(found, latest_ms)  # raises
                    else:
                        found = checked_time(time_of(event), latest_ms)
                    context.event_ms = time_ms = found
                    if single is not None:
                        single(event, context)
                    else:
                        for binding in bindings:
                            if fresh and binding is not bindings[0]:
                                event = make(event.key, decode_value(record.value()), record)
                            binding.function(event, context)
                    undo.clear()
                    if time_ms > newest_ms:
                        newest_ms = times.observe(time_ms)
            except (*ENDING, CorruptStateError, PoisonError, RetryError):
                raise
            except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its record
                self._take_back(mark)
                if self._seen is not None:
                    self._seen.disown()
                self._reject(topic, binding, context.message, error)
                if time_ms > newest_ms:
                    newest_ms = times.observe(time_ms)
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
                times = [record.timestamp()[1] for record in unique]
                context.message = unique[times.index(max(times))]
                decode_key = topic.key.decode
                keys = [decode_key(record.key()) for record in unique]
                batch = RuntimeBatch(unique, keys, topic.value.read_all(unique), self._make)
                last_ms = self._time_batch(batch)
                binding.function(batch, context)
                self._undo.clear()
                self._observe(last_ms)
            if seen is not None:
                seen.settle(admitted)
        except (*ENDING, CorruptStateError):
            raise
        except BaseException as error:  # noqa: BLE001 - any other error of user code belongs to its batch
            self._take_back(mark)
            if len(records) == 1:
                self._reject(topic, binding, records[0], error)
                self._observe_skipped(topic, records[0])
                return
            middle = len(records) // 2
            self._run_batch(topic, binding, records[:middle])
            self._run_batch(topic, binding, records[middle:])

    def _time_batch(self, batch: RuntimeBatch[Any, Any]) -> int:
        """The latest event time in a batch, which is then that of its outputs; -1 in a group without a clock.

        Raises EventTimeError, and what the user's function raises.
        """
        if self._times is None:
            return -1
        context = self._context
        times: list[int] = [context.time_of(event) for event in batch]
        last_ms = max(times)
        context.message = batch.message(times.index(last_ms))
        context.event_ms = last_ms
        return last_ms

    def _observe(self, time_ms: int) -> None:
        """Move the clock after a batch."""
        times = self._times
        if times is not None and time_ms > times.newest_ms:
            times.newest_ms = times.observe(time_ms)

    def _observe_skipped(self, topic: DeclaredTopic[Any, Any], record: Record) -> None:
        """Move the clock after a record of a batch handler that was skipped, if it has an event time."""
        if self._times is not None:
            self._observe(self._time_of(topic, record))

    def _has_bad_time(self, topic: DeclaredTopic[Any, Any], record: Record) -> bool:
        """Whether the record has no usable event time, and so fails at every attempt."""
        return self._times is not None and topic.name in self._ahead and self._time_of(topic, record) < 0

    def _time_of(self, topic: DeclaredTopic[Any, Any], record: Record) -> int:
        """The event time of a record; -1 if it has none."""
        try:
            event = self._make(topic.key.decode(record.key()), topic.value.read(record), record)
            time_ms: int = self._context.time_of(event)
        except ENDING:
            raise
        except BaseException:  # noqa: BLE001 - codecs and functions of users may raise anything
            return -1
        return time_ms

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
        retry = None
        if not self._has_bad_time(topic, record):
            retry = self._errors.retry(topic, binding, record, error, failures, self._seen)
        if retry is not None:
            try:
                raise retry from error
            finally:
                # This frame is in its traceback. The cycle would keep what the error holds, such as a socket, open.
                del retry
        self._errors.settle(binding, record, error, failures)
