"""Steps that are due at a time, such as the ends of windows: `DueSteps`, of one partition number.

A *source* has the steps of one declaration, in the order of their times. There are three kinds:

    timers    due by the event clock. Records wait until all due ones are fired
    ticks     due by the wall clock (`ticks.py`)
    others    due by the event clock, such as the ends of windows. Fired between records

A turn fires

    most      MOST steps or MOST_S, so that other partitions do not wait long
    least     twice the rows that the open commit has created, so that due steps cannot accumulate

What is decided by the clock, such as whether an event is late, does not depend on when a step is fired. A step is
handled as a record of a pseudo-topic, with the undo log and the policy of its own function. A retry holds the queue of
its own source only; records do not wait for it. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from pipeline.core.event_time import NEVER_MS, EventClock
from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError
from pipeline.ports import Clock, Record
from pipeline.runtime.task.handler_errors import ENDING, error_text
from pipeline.runtime.task.processor import Processor
from pipeline.runtime.task.record_errors import DueStepsError, RetryError
from pipeline.runtime.task.refused_outputs import RefusedOutputError
from pipeline.runtime.task.ticks import Ticks

__all__ = ["MOST", "Allowance", "DueSource", "DueSteps"]

MOST = 5_000
MOST_S = 0.02
_LOOK_EVERY = 32  # steps between two reads of the wall clock

_END: Any = object()
Refused = Callable[[Record], RefusedOutputError | None]


class DueSource(Protocol):
    """The steps of one declaration in one partition."""

    @property
    def next_ms(self) -> int:
        """The clock at which the first step is due; `NEVER_MS` without steps."""
        ...

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes and that become due later. Twice as many steps are fired."""
        ...

    def due(self, more: Callable[[], bool]) -> Iterator[Record | None]:
        """The due steps, in order of time. Taking the next one means that the last one is finished.

        `more` is called before each step and before each other write, and ends the iterator by False. A step may write
        to tables and to the index before it is yielded: if its function raises, that is undone. If it raises and is
        skipped, the iterator continues, and must still remove the step. None is a step that calls no function, so that
        its writes are committed soon: a row was only indexed again.
        """
        ...


class Allowance:
    """How many steps one turn may fire. `room`: the limit of the open commit."""

    def __init__(self, clock: Clock, least: int, room: int) -> None:
        self._clock = clock
        self._least = least
        self._room = room
        self._until_s = clock.monotonic_s() + MOST_S
        self._asked = 0
        self.done = 0
        self.begun: Record | None = None  # the step that was begun last
        self.last: Record | None = None  # the last step that is finished

    @property
    def left(self) -> bool:
        """Whether another step may be fired."""
        asked = self._asked
        if asked >= self._room:
            return False
        if asked < self._least:
            return True
        return asked < MOST and (asked % _LOOK_EVERY != 0 or self._clock.monotonic_s() < self._until_s)

    def more(self) -> bool:
        """Whether another step may be fired; if so, it is counted. A write that is not a step counts as one."""
        left = self.left
        self._asked += left
        return left

    def one(self) -> Allowance:
        """One step of it."""
        return Allowance(self._clock, 1, 1)

    def take(self, part: Allowance) -> None:
        """Count the steps of a part."""
        self._asked += part._asked
        self.done += part.done
        self.last = part.last or self.last


@dataclass(slots=True)
class _Queue:
    """A source. `failures`: of its step `failed`, which is tried again at `again_s`."""

    name: str
    source: DueSource
    handled: bool
    timers: bool = False
    ticks: Ticks | None = None
    failures: int = 0
    failed: tuple[int, bytes] = (0, b"")
    again_s: float = 0.0

    def is_due(self, clock_ms: int) -> bool:
        """Whether a step is due. `clock_ms`: the event clock."""
        return self.source.next_ms <= (clock_ms if self.ticks is None else self.ticks.wall_ms)


class DueSteps:
    """The sources of one partition number, by the names of their pseudo-topics.

    `handled`: those that have a function. The steps of the others are only removed. `timers`: those for which records
    wait.
    """

    def __init__(
        self,
        event_clock: EventClock,
        clock: Clock,
        sources: Mapping[str, DueSource],
        handled: Collection[str],
        timers: Collection[str] = (),
        ticks: Ticks | None = None,
    ) -> None:
        self._event_clock = event_clock
        self._clock = clock
        self._queues = [
            _Queue(name, source, name in handled, name in timers) for name, source in sources.items()
        ]
        self._queues.sort(key=lambda queue: not queue.timers)  # records wait for them
        if ticks is not None:
            self._queues += [
                _Queue(name, source, True, ticks=ticks) for name, source in ticks.sources.items()
            ]
        self._held = 0  # queues with a step that is to be tried again
        self.next_tick_ms = NEVER_MS  # the wall clock at the next tick
        self.plan()

    @property
    def pending(self) -> bool:
        """Whether a step is due, or is to be tried again."""
        return self._held > 0 or self._event_clock.due or self._clock.wall_ms() >= self.next_tick_ms

    @property
    def timer_due(self) -> bool:
        """Whether records must wait until timers are fired."""
        return self._event_clock.timer_due

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes and that become due later."""
        return sum(queue.source.changes for queue in self._queues)

    def plan(self) -> None:
        """Find the times of the next steps."""
        clock, waiting = self._event_clock, [queue for queue in self._queues if not queue.failures]
        self._held = len(self._queues) - len(waiting)
        due = [(queue, queue.source.next_ms) for queue in waiting]
        clock.next_due_ms = min((at for queue, at in due if queue.ticks is None), default=NEVER_MS)
        clock.next_timer_ms = min((at for queue, at in due if queue.timers), default=NEVER_MS)
        self.next_tick_ms = min((at for queue, at in due if queue.ticks is not None), default=NEVER_MS)

    def fire(self, processor: Processor, allowance: Allowance, refused: Refused) -> None:
        """Fire the due steps. `refused`: why Kafka refuses an output of a step.

        Raises PoisonError, CorruptStateError, DueStepsError.
        """
        self._fire_queues(self._queues, processor, allowance, refused)

    def fire_timers(self, processor: Processor, allowance: Allowance, refused: Refused) -> None:
        """Fire the due timers. As `fire`."""
        timers = [queue for queue in self._queues if queue.timers and not queue.failures]
        self._fire_queues(timers, processor, allowance, refused)

    def _fire_queues(
        self, queues: list[_Queue], processor: Processor, allowance: Allowance, refused: Refused
    ) -> None:
        try:
            for queue in queues:
                if queue.failures:
                    self._try_again(queue, processor, allowance, refused)
                if not queue.failures and queue.is_due(self._event_clock.ms):
                    self._fire(queue, processor, allowance, refused)
        finally:
            processor.keep()
            self.plan()

    def _try_again(self, queue: _Queue, processor: Processor, allowance: Allowance, refused: Refused) -> None:
        """Fire the first step of a queue alone. It is the one that has failed, unless that was moved or cancelled."""
        if not allowance.left or self._clock.monotonic_s() < queue.again_s:
            return
        failures, queue.failures = queue.failures, 0
        alone = allowance.one()
        self._fire(queue, processor, alone, refused, failures)
        allowance.take(alone)

    def _fire(
        self, queue: _Queue, processor: Processor, allowance: Allowance, refused: Refused, failures: int = 0
    ) -> None:
        """Fire steps of a queue. `failures`: of the step `queue.failed`, if that is the first one."""
        steps = _read(queue, allowance, processor.task)
        if not queue.handled:
            for step in steps:
                processor.keep()
                allowance.done, allowance.last = allowance.done + 1, step or allowance.last
            return
        if failures:
            first = next(steps, _END)
            if first is _END:  # it was cancelled
                return
            if first is None:
                queue.failures, allowance.done = failures, allowance.done + 1
                return
            failures = failures if _place(first) == queue.failed else 0
            steps = chain((first,), steps)
        try:
            processor.process_steps(queue.name, _counted(steps, allowance, processor, refused), failures)
        except RetryError as stopped:
            queue.failures, queue.again_s = stopped.failures, self._clock.monotonic_s() + stopped.wait_s
            queue.failed = (0, b"") if allowance.begun is None else _place(allowance.begun)


def _read(queue: _Queue, allowance: Allowance, task: TaskId) -> Iterator[Record | None]:
    """The due steps of a queue. An error between two steps belongs to neither of them, and ends the task."""
    try:
        yield from queue.source.due(allowance.more)
    except (*ENDING, CorruptStateError, GeneratorExit):
        raise
    except BaseException as error:
        raise DueStepsError(
            f"task {task}: the next due step of {queue.name} cannot be read: {error_text(error)}",
            hint="fix the code that raises, such as a codec, and restart the worker; the log has the traceback",
        ) from error


def _place(step: Record) -> tuple[int, bytes]:
    """Identifies a step of a source."""
    return step.offset(), step.key() or b""


def _counted(
    steps: Iterator[Record | None],
    allowance: Allowance,
    processor: Processor,
    refused: Refused,
) -> Iterator[Record]:
    """The steps, counted when they are finished. To those with a refused output, their policy is applied at once."""
    for step in steps:
        if step is not None:
            allowance.begun = step
            error = refused(step)
            if error is None:
                yield step
            else:
                processor.condemn(step.topic(), step, error)
        allowance.done, allowance.last = allowance.done + 1, step or allowance.last
