"""Sessions of one key: which of them an event belongs to, when they end, and their row. Pure.

A session is the time from its first event to its last one, and a value. An event belongs to each open session of its
key that is at most `gap_ms` away from it; such sessions are merged. If there is none, it begins a session:

    gap 10, sessions 5...9 and 40...44      an event at 19 belongs to the first one: 5...19
                                            an event at 20 begins a session: 20...20
                                            an event at 29, after the one at 19: 29 is near 19, but not near 40
                                            an event at 30, after the one at 29: all are merged, 5...44

A session is due a gap and a millisecond after its last event: no later event can belong to it. It is closed once the
mark has reached that time. A closed session never changes, whether its row is still stored or not: an event joins open
sessions only. An event is late if there is no such session, and one that it would begin would be closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import CorruptStateError

__all__ = ["Place", "Session", "due_ms", "pack_sessions", "place_of", "unpack_sessions"]

_VERSION = b"\x01"


class Session(NamedTuple):
    """The times of its first and last event, and its value in bytes. `value`: the decoded one, if it is known."""

    start_ms: int
    last_ms: int
    data: bytes
    value: Any = None

    @property
    def end_ms(self) -> int:
        """A millisecond after the last event."""
        return self.last_ms + 1


class Place(NamedTuple):
    """Where an event belongs: the session from `start_ms` to `last_ms`, which is made of `joined`, in order of time.

    `others`: the remaining sessions of the key.
    """

    start_ms: int
    last_ms: int
    joined: Sequence[Session]
    others: Sequence[Session]


def due_ms(session: Session, gap_ms: int) -> int:
    """The mark at which a session is closed."""
    return session.last_ms + gap_ms + 1


def place_of(sessions: Sequence[Session], time_ms: int, gap_ms: int, closed_ms: int) -> Place | None:
    """The place of an event of this time among the sessions of its key; None if it is late. `closed_ms`: the mark."""
    first, last = time_ms - gap_ms, time_ms + gap_ms
    if len(sessions) == 1:  # most keys have one, which the event extends: no lists are made
        start_ms, last_ms = sessions[0][:2]
        if first <= last_ms and start_ms <= last and last_ms + gap_ms >= closed_ms:
            return Place(min(start_ms, time_ms), max(last_ms, time_ms), sessions, ())
    joined: list[Session] = []
    others: list[Session] = []
    for session in sessions:
        near = session.start_ms <= last and session.last_ms >= first
        (joined if near and due_ms(session, gap_ms) > closed_ms else others).append(session)
    if not joined:
        return None if last + 1 <= closed_ms else Place(time_ms, time_ms, (), others)
    joined.sort(key=itemgetter(0))
    start_ms = min(joined[0].start_ms, time_ms)
    return Place(start_ms, max(time_ms, *[session.last_ms for session in joined]), joined, others)


class _Row(msgspec.Struct, array_like=True):
    """What is stored. `indexed_ms`: the time of the row in the index of due rows."""

    indexed_ms: int
    sessions: list[tuple[int, int, bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


def pack_sessions(indexed_ms: int, sessions: Sequence[Session]) -> bytes:
    """The row of a key with sessions."""
    return _VERSION + _encoder.encode(_Row(indexed_ms, [session[:3] for session in sessions]))


def unpack_sessions(data: bytes, where: str) -> tuple[int, tuple[Session, ...]]:
    """`indexed_ms` and the sessions of a row. Raises CorruptStateError with `where`."""
    try:
        if data[:1] != _VERSION:
            raise CorruptStateError(f"a row of {where} has an unknown format")
        row = _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        raise CorruptStateError(f"a row of {where} cannot be decoded: {error}") from error
    return row.indexed_ms, tuple(Session(*each) for each in row.sessions)
