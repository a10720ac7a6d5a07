"""The event times of the records of one partition number, and the row of its clock: `EventTimes`.

The wall clock is read once for a batch of records. The row is written with each commit that contains a record or a due
step of the partition. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Event
from pipeline.core.event_time import NEVER_MS, ClockState, EventClock, checked_time, clock_key, pack_state
from pipeline.ports import Clock, Record

__all__ = ["EventTimes", "Marked", "UntilTimer"]


class Named(Protocol):
    """What has a mark."""

    @property
    def name(self) -> str: ...


class Marked(Protocol):
    """A window, a join or a table with a time-to-live in one partition. What ended by the mark never returns."""

    @property
    def definition(self) -> Named: ...

    @property
    def closed_ms(self) -> int: ...


class UntilTimer:
    """An iterator over records. Taking the next one means that the last one is finished; then a timer may be due.

    Attributes:
        next: The record that waits for a timer; None if all records were taken.
    """

    __slots__ = ("_clock", "_records", "next")

    def __init__(self, records: Sequence[Record], clock: EventClock) -> None:
        self._records = records
        self._clock = clock
        self.next: Record | None = None

    def __iter__(self) -> Iterator[Record]:
        """The records. Iterate once."""
        clock = self._clock
        for record in self._records:
            if clock.ms >= clock.next_timer_ms:
                self.next = record
                return
            yield record


class EventTimes:
    """Checks the event times of records, and moves the clock.

    Attributes:
        clock: The clock.
        latest_ms: The latest event time that is accepted in this batch.
        newest_ms: The newest time of the input of this batch. Later ones are for `observe`.
    """

    __slots__ = ("_ahead_ms", "_key", "_system", "_written", "clock", "latest_ms", "newest_ms", "observe")

    def __init__(
        self, clock: EventClock, stored: ClockState, system: Clock, ahead_ms: int, rows: bytes = b""
    ) -> None:
        """`ahead_ms`: how far event times may be ahead of the wall clock. `rows`: the prefix of all rows."""
        self.clock = clock
        self.observe = clock.observe
        self.latest_ms = 0
        self.newest_ms = -1
        self._system = system
        self._ahead_ms = ahead_ms
        self._key = clock_key(rows)
        self._written = pack_state(stored)

    def begin(self, topic: str, *, replayed: bool) -> None:
        """Records of this topic are handled next. Replays are old, so they do not move the clock."""
        wall_ms = self._system.wall_ms()
        self.latest_ms = wall_ms + self._ahead_ms
        self.newest_ms = (
            NEVER_MS if replayed else self.clock.begin(topic, wall_ms, self._system.monotonic_s())
        )

    def checked(self, at_end: Collection[str]) -> None:
        """The records of these topics are processed, as the broker has answered."""
        self.clock.checked(at_end, self._system.wall_ms(), self._system.monotonic_s())

    def reader(self, topic: DeclaredTopic[Any, Any]) -> Callable[[Event[Any, Any]], int]:
        """What gives the event time of an event of a topic. It raises EventTimeError, and what the function raises."""
        time_of, latest_ms = topic.event_time_ms, self.latest_ms
        if time_of is None:
            return lambda event: checked_time(event.timestamp_ms, latest_ms)
        return lambda event: checked_time(time_of(event), latest_ms)

    def until_timer(self, records: Sequence[Record]) -> UntilTimer:
        """The records up to the one for which a timer must be fired first."""
        return UntilTimer(records, self.clock)

    def take_writes(self, marked: Iterable[Marked]) -> dict[bytes, bytes | None]:
        """The row, if it has changed. `marked`: what has marks in the partition."""
        closed = {each.definition.name: each.closed_ms for each in marked if each.closed_ms > 0}
        data = pack_state(self.clock.state(closed))
        if data == self._written:
            return {}
        self._written = data
        return {self._key: data}
