"""Rows of windows and histories at given times, for other programs: `timed_rows`.

It reads a committed state, and follows the rules that a handler follows: a closed window has no rows, and a value that
is too old is not in its history, whether they are still stored or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from pipeline.api.declarations import DeclaredTable
from pipeline.api.histories import DeclaredHistory
from pipeline.api.table import table_prefix
from pipeline.api.windows import AlignedWindow, SessionWindow, pack_end, unpack_end
from pipeline.core.event_time import ClockState
from pipeline.core.histories import values_in
from pipeline.core.sessions import place_of, unpack_sessions
from pipeline.errors import InvariantError

__all__ = ["CommittedRows", "TimedRow", "Times", "has_times", "timed_rows"]


class Times(NamedTuple):
    """What is requested: the windows at a time, which is both, or the values of a history from a time to another."""

    from_ms: int
    to_ms: int


class TimedRow(NamedTuple):
    """A window of a key, or a value of a history, of which start and end are its time.

    `data`: the encoded value; None if the window has none.
    """

    start_ms: int
    end_ms: int
    data: bytes | None


class CommittedRows(Protocol):
    """Reads of a committed state. Each returns None if there is no such row."""

    def get(self, key: bytes) -> bytes | None: ...

    def first(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """The first row with this prefix from `start` on."""
        ...


def has_times(definition: DeclaredTable[Any, Any]) -> bool:
    """Whether rows of it are requested by time."""
    return isinstance(definition, AlignedWindow | SessionWindow | DeclaredHistory)


def timed_rows(
    definition: DeclaredTable[Any, Any],
    begin: bytes,
    key: bytes,
    times: Times,
    clock: ClockState,
    rows: CommittedRows,
) -> list[TimedRow]:
    """The open windows of a key at a time, in order of their ends, or the values of a history, in order of time.

    Of sessions: those that an event at this time would belong to. Of other windows: also those without a value.

    Args:
        definition: What `has_times` is true for.
        begin: What the keys of the rows of the partition begin with.
        key: The encoded key.
        times: What is requested.
        clock: The stored clock of the partition.
        rows: The state.

    Returns:
        The rows.

    Raises:
        CorruptStateError: A row cannot be decoded.
    """
    prefix = begin + table_prefix(definition.name)
    if isinstance(definition, SessionWindow):
        return _sessions(definition, rows.get(prefix + key), times.from_ms, clock)
    if isinstance(definition, DeclaredHistory):
        return _values(prefix, key, Times(max(times.from_ms, definition.closed_at(clock)), times.to_ms), rows)
    if isinstance(definition, AlignedWindow):
        return _windows(definition, prefix, key, times.from_ms, clock, rows)
    raise InvariantError(f"{definition.label} has no times")


def _windows(
    window: AlignedWindow[Any, Any],
    prefix: bytes,
    key: bytes,
    at_ms: int,
    clock: ClockState,
    rows: CommittedRows,
) -> list[TimedRow]:
    closed_ms = window.closed_at(clock)
    return [
        TimedRow(end_ms - window.size_ms, end_ms, rows.get(prefix + pack_end(end_ms) + key))
        for end_ms in window.ends_at(at_ms)
        if end_ms > closed_ms
    ]


def _sessions(
    window: SessionWindow[Any, Any], data: bytes | None, at_ms: int, clock: ClockState
) -> list[TimedRow]:
    if data is None:
        return []
    _, sessions = unpack_sessions(data, window.label)
    place = place_of(sessions, at_ms, window.gap_ms, window.closed_at(clock))
    joined = place.joined if place is not None else ()
    return [TimedRow(each.start_ms, each.end_ms, each.data) for each in joined]


def _values(prefix: bytes, key: bytes, times: Times, rows: CommittedRows) -> list[TimedRow]:
    found = [
        TimedRow(time_ms, time_ms, data)
        for end_ms in _ends_after(prefix, times.from_ms, rows)
        if (row := rows.get(prefix + pack_end(end_ms) + key)) is not None
        for time_ms, data in values_in(row)
        if times.from_ms <= time_ms <= times.to_ms
    ]
    found.sort(key=_time)  # buckets overlap after a change of keep_s
    return found


def _ends_after(prefix: bytes, time_ms: int, rows: CommittedRows) -> Iterator[int]:
    """The ends of the stored buckets that may have values from this time on, in order: a read for each."""
    end_ms = time_ms
    while (found := rows.first(prefix, prefix + pack_end(end_ms + 1))) is not None:
        end_ms = unpack_end(found[0][len(prefix) :])
        yield end_ms


def _time(row: TimedRow) -> int:
    return row.start_ms
