"""A task's part of a join: matches events, keeps those that may match later, and gives the unmatched ones.

An event is matched with the events of the other side that have not expired, then it is kept with its own side. All of
it belongs to its record: if a function raises, everything is undone. What has expired is decided by the mark alone, so
results do not depend on when due steps are fired. Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.api.bindings import Binding
from pipeline.api.context import MatchContext, RuntimeContext
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Event
from pipeline.api.indexed_rows import IndexedTable, RowPlace, content_of
from pipeline.api.joins import DeclaredJoin, JoinSide, SideName
from pipeline.core.event_time import NEVER_MS
from pipeline.core.headers import headers_of
from pipeline.core.joins import JoinEvent, added, marked, pack_events, partners, unpack_events
from pipeline.core.place_hash import place_hash

__all__ = ["RuntimeJoin", "StoredRecord"]

_CREATE_TIME = 1
_EVENT_BYTES = 40  # about what a row has of an event beside its value


class StoredRecord:
    """`ports.Record`: a record that waits, or waited in vain. `time_ms`: its event time. `topic_id`: its identity."""

    __slots__ = ("_event", "_key", "_partition", "_topic", "time_ms")

    def __init__(self, topic: str, partition: int, key: bytes, event: JoinEvent) -> None:
        self._topic = topic
        self._partition = partition
        self._key = key
        self._event = event
        self.time_ms = event.time_ms

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._event.offset

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._event.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self._event.headers) or None

    def timestamp(self) -> tuple[int, int]:
        timestamp_ms = self._event.timestamp_ms
        return (_CREATE_TIME if timestamp_ms >= 0 else 0), timestamp_ms

    @property
    def topic_id(self) -> str:
        """Tells the steps of a pseudo-topic apart."""
        return place_hash(self._topic, self._partition, self._event.offset, self._event.timestamp_ms)


class _Side:
    """The events of one side in one partition. It is a source of due steps: the unmatched events."""

    def __init__(self, definition: JoinSide, place: RowPlace, join: RuntimeJoin, make: type[Any]) -> None:
        where = f"{definition.label}, partition {place.partition}"
        self.definition = definition
        self.make = make
        self.table = IndexedTable(
            definition, place, lambda data: unpack_events(data, where), pack_events, _size, join.wait_ms
        )
        self._join = join
        self._partition = place.partition

    @property
    def next_ms(self) -> int:
        """The clock at which the first row may be due."""
        first_ms = self.table.first_ms
        if first_ms == NEVER_MS:
            return NEVER_MS
        return first_ms + self._join.wait_ms if first_ms > max(self._join.mark_ms, 0) else 0

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes because of records."""
        return self.table.changes

    def due(self, more: Callable[[], bool]) -> Iterator[StoredRecord | None]:
        """The unmatched events that have expired, in order of time and key. Taking the next one removes the last one.

        None: events that have matched were removed, or a row was indexed again. Ends when `more` says so. Raises
        CorruptStateError.
        """
        closed_ms, name = self._join.closed_ms, self.definition.unmatched.name
        for slot, entry_ms, events in self.table.due_rows(closed_ms):
            if not more():
                return
            rest = tuple([each for each in events if not each.matched or each.due_ms > closed_ms])
            first = min(rest, key=_due, default=None)
            if len(rest) == len(events) and first is not None and first.due_ms == entry_ms:
                yield StoredRecord(name, self._partition, self.table.key_of(slot), first)
                rest = tuple([each for each in rest if each is not first])
            else:
                yield None
            self.table.settle(slot, rest or None, _first_ms(rest))


class RuntimeJoin:
    """A task's part of a join in one partition.

    Attributes:
        definition: The join.
        mark_ms: The stored mark.
        wait_ms: How long an event waits.
        removed: How many events waited no longer because their key had too many.
    """

    def __init__(
        self,
        definition: DeclaredJoin[Any, Any, Any],
        place: RowPlace,
        context: RuntimeContext,
        mark_ms: int,
        match: Binding | None,
        event_types: Mapping[str, type[Any]],
    ) -> None:
        """`match`: the function for pairs. `event_types`: the classes of events, by topic."""
        self.definition = definition
        self.mark_ms = mark_ms
        self.wait_ms = definition.within_ms + definition.grace_ms
        self.removed = 0
        self._clock = place.clock
        self._context = context
        self._partition = place.partition
        self._match = match
        self._sides: dict[SideName, _Side] = {
            each.side: _Side(each, place, self, event_types[each.topic.name]) for each in definition.sides
        }

    @property
    def closed_ms(self) -> int:
        """The mark: events below it have expired. It never goes back, also if the join waits longer than before."""
        return max(0, self.mark_ms, self._clock.ms - self.wait_ms)

    @property
    def sources(self) -> dict[str, _Side]:
        """The sources of due steps, by name of the pseudo-topic."""
        return {each.definition.unmatched.name: each for each in self._sides.values()}

    @property
    def tables(self) -> Sequence[IndexedTable]:
        """The rows of both sides."""
        return [each.table for each in self._sides.values()]

    def handle(self, name: SideName, event: Event[Any, Any]) -> None:
        """Match an event, and keep it. Raises what the user's function raises."""
        context, closed_ms = self._context, self.closed_ms
        time_ms: int = context.event_ms
        own, other = self._sides[name], self._sides["right" if name == "left" else "left"]
        theirs = other.table.found(event.key)
        waiting = content_of(theirs) or ()
        found = partners(waiting, time_ms, self.definition.within_ms, closed_ms) if waiting else ()
        if found:
            if self._match is not None:
                self._call(self._match.function, name, event, found, other)
            if not all(each.matched for each in found):
                now = marked(waiting, found)
                other.table.write(theirs, now, _first_ms(now), 0)  # nothing is longer
        if not found or time_ms >= closed_ms:
            self._keep(own, event, time_ms, matched=bool(found))

    def _keep(self, own: _Side, event: Event[Any, Any], time_ms: int, *, matched: bool) -> None:
        """Add an event to its side."""
        message, closed_ms = event._message, self.closed_ms  # noqa: SLF001
        value = message.value()
        kept = JoinEvent(
            time_ms,
            time_ms + 1,
            matched,
            message.offset(),
            message.timestamp()[1],
            value,
            tuple(headers_of(message)),
        )
        mine = own.table.found(event.key)
        now, removed = added(content_of(mine) or (), kept, self.definition.most, closed_ms)
        self.removed += removed
        own.table.write(mine, now, _first_ms(now), len(value or b"") + _EVENT_BYTES)
        if removed or time_ms < closed_ms:
            self._clock.next_due_ms = 0

    def _call(
        self,
        function: Callable[..., Any],
        name: SideName,
        event: Event[Any, Any],
        found: Sequence[JoinEvent],
        other: _Side,
    ) -> None:
        """Call the user's function with each pair, in order of the partners' times."""
        context, topic = self._context, other.definition.topic
        time_ms, time_of = context.event_ms, context.time_of
        key, partition = event._message.key(), self._partition  # noqa: SLF001
        context.time_of = partial(_time_of, time_of)
        try:
            for each in found:
                record = StoredRecord(topic.name, partition, key, each)
                partner = other.make(event.key, _read(topic, record), record)
                pair = (event, partner) if name == "left" else (partner, event)
                function(pair, MatchContext(context, max(time_ms, each.time_ms)))
        finally:
            context.time_of = time_of


def _read(topic: DeclaredTopic[Any, Any], record: StoredRecord) -> Any:
    """The value of an event that waits. If it cannot be decoded, the error names it: it fails another record."""
    try:
        return topic.value.read(record)
    except Exception as error:
        place = f"{topic.name}[{record.partition()}] offset {record.offset()}"
        raise ValueError(
            f"the waiting event {place} cannot be decoded: {type(error).__name__}: {error}"
        ) from error


def _time_of(known: Callable[[Any], int], event: Any) -> int:
    """The event time of the partner, or of another event of the current topic."""
    message = event._message  # noqa: SLF001
    return message.time_ms if isinstance(message, StoredRecord) else known(event)


def _first_ms(events: Sequence[JoinEvent]) -> int:
    """When the first of these events is due; `NEVER_MS` without events."""
    return min((each.due_ms for each in events), default=NEVER_MS)


def _size(events: Sequence[JoinEvent]) -> int:
    """About the bytes of a row."""
    return sum([len(each.value or b"") + _EVENT_BYTES for each in events])


def _due(event: JoinEvent) -> int:
    return event.due_ms
