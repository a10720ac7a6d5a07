"""The events of one side of a join that wait for events of the other side, and their row. Pure.

Two events of a key match if their times are at most `within_ms` apart. An event is kept for `within_ms + grace_ms`, by
the event clock: it has *expired* when its time is below the mark, which is the clock less this time, 0 or more, and
never goes back. An expired event matches nothing more, whether it is still stored or not. So each event has its
matches, or is unmatched once.

    due_ms    the mark at which its unmatched call is due, or at which it is removed if it has matched: a millisecond
              after its time. 0 for an event that is one too many of its key: at once
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from pipeline.errors import CorruptStateError

__all__ = ["JOIN_SCHEMA", "JoinEvent", "added", "marked", "pack_events", "partners", "unpack_events"]

JOIN_SCHEMA = "join("  # the fingerprints of the sides of joins begin with it, those of other tables do not

_VERSION = b"\x01"


class JoinEvent(NamedTuple):
    """A record that waits. `time_ms`: its event time. `due_ms`: the mark at which it is due."""

    time_ms: int
    due_ms: int
    matched: bool
    offset: int
    timestamp_ms: int
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def partners(
    events: Sequence[JoinEvent], time_ms: int, within_ms: int, closed_ms: int
) -> Sequence[JoinEvent]:
    """The events that an event of the other side matches, in order of time. `closed_ms`: the mark."""
    first, last = time_ms - within_ms, time_ms + within_ms
    found = [each for each in events if first <= each.time_ms <= last and each.due_ms > closed_ms]
    found.sort(key=_time)
    return found


def marked(events: Sequence[JoinEvent], matched: Collection[JoinEvent]) -> tuple[JoinEvent, ...]:
    """The events, some of which have matched."""
    now = {id(each) for each in matched}
    return tuple([each._replace(matched=True) if id(each) in now else each for each in events])


def added(
    events: Sequence[JoinEvent], event: JoinEvent, most: int, closed_ms: int
) -> tuple[tuple[JoinEvent, ...], int]:
    """The events with one more, and the number of those that wait no longer because there would be more than `most`.

    The oldest ones are due at once, or removed if they have matched.
    """
    waiting = [each for each in events if each.due_ms > closed_ms]
    excess = len(waiting) + (event.due_ms > closed_ms) - most
    if excess <= 0:
        return (*events, event), 0
    over = {id(each) for each in sorted([*waiting, event], key=_time)[:excess]}
    kept = [
        each._replace(due_ms=0) if id(each) in over else each
        for each in (*events, event)
        if not (each.matched and id(each) in over)
    ]
    return tuple(kept), excess


class _Row(msgspec.Struct, array_like=True):
    """What is stored. `indexed_ms`: the time of the row in the index of due rows."""

    indexed_ms: int
    events: list[tuple[int, int, bool, int, int, bytes | None, tuple[tuple[str, bytes | None], ...]]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


def pack_events(indexed_ms: int, events: Sequence[JoinEvent]) -> bytes:
    """The row of a key."""
    return _VERSION + _encoder.encode(_Row(indexed_ms, list(events)))


def unpack_events(data: bytes, where: str) -> tuple[int, tuple[JoinEvent, ...]]:
    """`indexed_ms` and the events of a row. Raises CorruptStateError with `where`."""
    try:
        if data[:1] != _VERSION:
            raise CorruptStateError(f"a row of {where} has an unknown format")
        row = _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"a row of {where} cannot be decoded: {error}") from error
    return row.indexed_ms, tuple([JoinEvent(*each) for each in row.events])


_time = attrgetter("time_ms")
