"""Steps that are due at a time of the event clock, such as the ends of windows: `DueSteps`, of one partition number.

A *source* has the steps of one declaration, in the order of their times. Between records, the task fires the due ones:

    most     MOST steps or MOST_S a turn, so that records do not wait long
    least    twice the rows that the open commit has created, so that due steps cannot accumulate

What is decided by the clock, such as whether an event is late, does not depend on when a step is fired. A step is
handled as a record of a pseudo-topic, with the undo log and the policy of its own function. A retry holds the queue of
its own source only. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.event_time import NEVER_MS, EventClock
from pipeline.ports import Clock, Record
from pipeline.runtime.task.processor import Processor
from pipeline.runtime.task.record_errors import RetryError
from pipeline.runtime.task.refused_outputs import RefusedOutputError

__all__ = ["MOST", "Allowance", "DueSource", "DueSteps"]

MOST = 5_000
MOST_S = 0.02
_LOOK_EVERY = 32  # steps between two reads of the wall clock


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
    """A source. `failures`: of its first step, which is tried again at `again_s`."""

    name: str
    source: DueSource
    handled: bool
    failures: int = 0
    again_s: float = 0.0


class DueSteps:
    """The sources of one partition number, by the names of their pseudo-topics.

    `handled`: those that have a function. The steps of the others are only removed.
    """

    def __init__(
        self,
        event_clock: EventClock,
        clock: Clock,
        sources: Mapping[str, DueSource],
        handled: Collection[str],
    ) -> None:
        self._event_clock = event_clock
        self._clock = clock
        self._queues = [_Queue(name, source, name in handled) for name, source in sources.items()]
        self._held = 0  # queues with a step that is to be tried again
        self.plan()

    @property
    def pending(self) -> bool:
        """Whether a step is due, or is to be tried again."""
        return self._held > 0 or self._event_clock.due

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes and that become due later."""
        return sum(queue.source.changes for queue in self._queues)

    def plan(self) -> None:
        """Find the time of the next step."""
        waiting = [queue.source.next_ms for queue in self._queues if not queue.failures]
        self._event_clock.next_due_ms = min(waiting, default=NEVER_MS)
        self._held = sum(queue.failures > 0 for queue in self._queues)

    def fire(
        self,
        processor: Processor,
        allowance: Allowance,
        refused: Callable[[Record], RefusedOutputError | None],
    ) -> None:
        """Fire the due steps. `refused`: why Kafka refuses an output of a step.

        Raises PoisonError, CorruptStateError.
        """
        try:
            for queue in self._queues:
                if queue.failures:
                    self._try_again(queue, processor, allowance, refused)
                if not queue.failures and queue.source.next_ms <= self._event_clock.ms:
                    self._fire(queue, processor, allowance, refused)
        finally:
            processor.keep()
            self.plan()

    def _try_again(
        self,
        queue: _Queue,
        processor: Processor,
        allowance: Allowance,
        refused: Callable[[Record], RefusedOutputError | None],
    ) -> None:
        if not allowance.left or self._clock.monotonic_s() < queue.again_s:
            return
        failures, queue.failures = queue.failures, 0
        alone = allowance.one()
        self._fire(queue, processor, alone, refused, failures)
        allowance.take(alone)

    def _fire(
        self,
        queue: _Queue,
        processor: Processor,
        allowance: Allowance,
        refused: Callable[[Record], RefusedOutputError | None],
        failures: int = 0,
    ) -> None:
        steps = queue.source.due(allowance.more)
        if not queue.handled:
            for step in steps:
                processor.keep()
                allowance.done, allowance.last = allowance.done + 1, step or allowance.last
            return
        try:
            processor.process_steps(queue.name, _counted(steps, allowance, processor, refused), failures)
        except RetryError as stopped:
            queue.failures, queue.again_s = stopped.failures, self._clock.monotonic_s() + stopped.wait_s


def _counted(
    steps: Iterator[Record | None],
    allowance: Allowance,
    processor: Processor,
    refused: Callable[[Record], RefusedOutputError | None],
) -> Iterator[Record]:
    """The steps, counted when they are finished. To those with a refused output, their policy is applied at once."""
    for step in steps:
        if step is not None:
            error = refused(step)
            if error is None:
                yield step
            else:
                processor.condemn(step.topic(), step, error)
        allowance.done, allowance.last = allowance.done + 1, step or allowance.last
