"""A task's part of a session window, as a handler sees it: the session of an event.

All sessions of a key are one row of an `IndexedTable`. `core/sessions.py` decides to which of them an event belongs.
Sessions are merged when the handler assigns the value of the new one. Until then, nothing is written, so a record that
fails leaves the sessions as they were. Used by the processing thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipeline.api.closed_windows import CloseRecord, SessionRecord
from pipeline.api.encode_errors import REFUSALS, refuse_event, refuse_value
from pipeline.api.event import Event
from pipeline.api.indexed_rows import IndexedTable, RowPlace, content_of
from pipeline.api.table import VALUE, Slot
from pipeline.api.window_rows import TaskWindow, WindowRow
from pipeline.api.windows import SessionWindow
from pipeline.core.event_time import NEVER_MS
from pipeline.core.sessions import Place, Session, due_ms, pack_sessions, place_of, unpack_sessions

__all__ = ["RuntimeSessions"]

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Any = object()


class SessionRow(WindowRow[K, V]):
    """The session of an event, as it is with the event: made of no, one or two sessions that are stored.

    `_seen`: the row of the key for which `_known` is the place. Another row of the handler may have changed it since.
    """

    __slots__ = ("_known", "_seen", "_sessions", "_time_ms")

    def __init__(
        self, sessions: RuntimeSessions[K, V], key: K, slot: Slot, time_ms: int, place: Place
    ) -> None:
        self._sessions = sessions
        self._slot = slot
        self._seen = slot[VALUE]
        self._time_ms = time_ms
        self._known = place
        self.key = key

    @property
    def start_ms(self) -> int:
        return self._place.start_ms

    @property
    def end_ms(self) -> int:
        return self._place.last_ms + 1

    @property
    def value(self) -> V:
        return self._sessions.value_of(self._place.joined)

    @value.setter
    def value(self, value: V) -> None:
        self._sessions.assign(self._slot, self._place, value)

    @property
    def _place(self) -> Place:
        slot = self._slot
        if slot[VALUE] is not self._seen:
            self._known = self._sessions.place(slot, self._time_ms) or self._known
            self._seen = slot[VALUE]
        return self._known


class RuntimeSessions(TaskWindow[K, V]):
    """A task's part of a session window, with what the runtime needs of it. It is a source of due steps."""

    __slots__ = ("_decode", "_fresh", "_gap_ms", "_partition", "_table", "_where")

    def __init__(self, definition: SessionWindow[K, V], place: RowPlace, context: Any, mark_ms: int) -> None:
        """`mark_ms`: the stored mark."""
        self._definition = definition
        self._context = context
        self._clock = place.clock
        self._mark_ms = mark_ms
        self._partition = place.partition
        self._grace_ms = definition.grace_ms
        self._gap_ms = definition.gap_ms
        self._decode: Callable[[bytes | None], V] = definition.own_value.decode
        self._fresh = not definition.own_value.immutable
        where = f"{definition.label}, partition {place.partition}"
        self._table = IndexedTable(
            definition.rows,
            place,
            lambda data: unpack_sessions(data, where),
            pack_sessions,
            _size,
            self._grace_ms,
        )
        self._late = None, 0, None
        self._late_events = 0

    @property
    def definition(self) -> SessionWindow[K, V]:
        """The window."""
        window: SessionWindow[K, V] = self._definition
        return window

    @property
    def late_events(self) -> int:
        """How often an event was late."""
        return self._late_events

    @property
    def closed_ms(self) -> int:
        """The sessions that are due up to this time are closed. It never goes back, also if `grace_s` is raised."""
        return self._closed_ms()

    @property
    def next_ms(self) -> int:
        """The clock at which the first row may be due."""
        first_ms = self._table.first_ms
        if first_ms == NEVER_MS:
            return NEVER_MS
        return first_ms + self._grace_ms if first_ms > self._mark_ms else 0

    @property
    def changes(self) -> int:
        """The number of rows that the open commit writes because of records."""
        return self._table.changes

    def rows(self, event: Event[Any, Any], /, *, key: Any = _MISSING) -> Sequence[WindowRow[K, V]]:
        """The session of an event; empty if the event is late. As `TaskWindow.rows`."""
        context = self._context
        try:
            message = event._message  # noqa: SLF001
        except AttributeError:
            refuse_event(event, f"{self._definition.label}: rows")
        time_ms: int = context.event_ms if message is context.message else context.time_of(event)
        if key is _MISSING:
            key = event.key
        slot = self._table.found(key)
        place = self.place(slot, time_ms)
        if place is None:
            self._is_late(event, (time_ms,))
            return ()
        return (SessionRow(self, key, slot, time_ms, place),)

    def get(self, key: K, /, *, at_ms: int) -> V | None:
        """The value of the session that an event of this key and time would belong to. As `TaskWindow.get`."""
        place = self.place(self._table.found(key), at_ms)
        return None if place is None or not place.joined else self.value_of(place.joined)

    def place(self, slot: Slot, time_ms: int) -> Place | None:
        """The place of an event among the sessions of a key; None if it is late."""
        return place_of(content_of(slot) or (), time_ms, self._gap_ms, self._closed_ms())

    def value_of(self, joined: Sequence[Session]) -> V:
        """The value of sessions that are merged; the default if there are none. Raises what `merge` raises."""
        if not joined:
            return self.definition.initial()
        value = self._decoded(joined[0])
        for session in joined[1:]:
            value = self._definition.merge(value, self._decoded(session))
        return value

    def assign(self, slot: Slot, place: Place, value: V) -> None:
        """Write the session at a place. Raises as a table does for its value."""
        definition = self._definition
        try:
            data, admitted = definition.own_value.admit(value)
        except REFUSALS as error:
            refuse_value(error, definition.label)
        session = Session(place.start_ms, place.last_ms, data, None if self._fresh else admitted)
        content = (*place.others, session)
        first_ms = self._first_ms(content) if place.others else place.last_ms + self._gap_ms + 1
        self._table.write(slot, content, first_ms, len(data))

    def due(self, more: Callable[[], bool]) -> Iterator[CloseRecord | None]:
        """The closed sessions, in the order of their ends and keys. Taking the next one removes the last one.

        None: a row was indexed again, which is a step without a call. Ends when `more` says so. Raises
        CorruptStateError.
        """
        closed_ms, table, name = self.closed_ms, self._table, self._definition.closes.name
        for slot, entry_ms, sessions in table.due_rows(closed_ms):
            if not more():
                return
            first, rest = min(sessions, key=_last_and_start), sessions
            if due_ms(first, self._gap_ms) == entry_ms:
                size_ms = first.end_ms - first.start_ms
                key = table.key_of(slot)
                yield SessionRecord(name, self._partition, first.end_ms, size_ms, key, first.data)
                rest = tuple(each for each in sessions if each is not first)
            else:
                yield None
            table.settle(slot, rest or None, self._first_ms(rest))

    def take_writes(self) -> dict[bytes, bytes | None]:
        """The writes since the last call, by full key."""
        return self._table.take_writes()

    def measure(self) -> int:
        """About the bytes that the values in memory take."""
        return self._table.measure()

    def trim(self, most_bytes: int) -> None:
        """Drop the oldest values that are not written, until about `most_bytes` are taken."""
        self._table.trim(most_bytes)

    def _first_ms(self, sessions: Sequence[Session]) -> int:
        """When the first of these sessions is due; `NEVER_MS` without sessions."""
        return min((due_ms(session, self._gap_ms) for session in sessions), default=NEVER_MS)

    def _decoded(self, session: Session) -> V:
        if self._fresh or session.value is None:
            return self._decode(session.data)
        value: V = session.value
        return value


def _size(sessions: Sequence[Session]) -> int:
    return sum([len(session.data) for session in sessions])


def _last_and_start(session: Session) -> tuple[int, int]:
    return session.last_ms, session.start_ms
