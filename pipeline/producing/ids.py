"""Event ids: what a duplicate is recognised by. They travel in the header `event-id`, as bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

__all__ = ["event_id", "forget_random", "new_event_id"]

_MOST_BYTES = 1024
_AT_ONCE = 256
_VARIANT = b"89ab"


class _Made:
    """Random ends of ids that are not used yet, and the beginning of all ids of this millisecond."""

    ends: Iterator[bytes] = iter(())
    start: tuple[int, bytes] = (0, b"")


def new_event_id() -> bytes:
    """A UUID of version 7 (RFC 9562) as text: 36 bytes that begin with the time, so ids sort about as made.

    Any thread may call it: taking from an iterator is one step, so no end is taken twice.
    """
    milliseconds = time.time_ns() // 1_000_000
    known, start = _Made.start
    if milliseconds != known:
        text = b"%012x" % (milliseconds & 0xFFFF_FFFF_FFFF)
        start = b"%b-%b-7" % (text[:8], text[8:])
        _Made.start = milliseconds, start
    end = next(_Made.ends, None)
    if end is None:
        ends = _random_ends()
        end = next(ends)
        _Made.ends = ends
    return start + end


def forget_random() -> None:
    """In a forked child, which must not use what its parent uses, too."""
    _Made.ends = iter(())


def event_id(given: str | bytes) -> bytes:
    """A caller's id as bytes. Raises TypeError, ValueError."""
    if type(given) is not bytes:
        if not isinstance(given, str):
            raise TypeError(f"an event's id is str or bytes, not {type(given).__name__}")
        given = given.encode()
    if not 0 < len(given) <= _MOST_BYTES:
        raise ValueError(f"an event's id has 1 to {_MOST_BYTES} bytes, not {len(given)}")
    return given


def _random_ends() -> Iterator[bytes]:
    """What follows the version in an id: 74 random bits, asked from the operating system for many at once."""
    digits = os.urandom(10 * _AT_ONCE).hex().encode()
    return iter(
        [
            b"%b-%c%b-%b" % (part[:3], _VARIANT[part[3] & 3], part[4:7], part[7:19])
            for part in (digits[at : at + 20] for at in range(0, len(digits), 20))
        ]
    )
