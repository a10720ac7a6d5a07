"""Event ids, by which duplicates are detected, and calls in forked children: `call_in_children`.

An id is in the header `event-id`, as bytes. In a forked child, clients have no threads, and locks may be held by
threads that do not exist. An object with such resources registers a function that is called in the child before any
other code runs there.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pipeline.producing.delivery import renew_lock

__all__ = ["call_in_children", "event_id", "forget_random", "never_release", "new_event_id"]

_MOST_BYTES = 1024
_AT_ONCE = 256
_VARIANT = b"89ab"


class _Made:
    """Random suffixes of ids that are not used yet, and the prefix of all ids of this millisecond."""

    ends: Iterator[bytes] = iter(())
    start: tuple[int, bytes] = (0, b"")


def new_event_id() -> bytes:
    """A UUID of version 7 (RFC 9562) as text: 36 bytes that begin with the time, so ids sort approximately by time.

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
    """In a forked child: discard the suffixes, which the parent uses."""
    _Made.ends = iter(())


def event_id(given: str | bytes) -> bytes:
    """A caller's id as UTF-8 bytes. Raises TypeError, ValueError (empty or too long)."""
    if type(given) is not bytes:
        if not isinstance(given, str):
            raise TypeError(f"an event's id is str or bytes, not {type(given).__name__}")
        given = given.encode()
    if not 0 < len(given) <= _MOST_BYTES:
        raise ValueError(f"an event's id has 1 to {_MOST_BYTES} bytes, not {len(given)}")
    return given


def _random_ends() -> Iterator[bytes]:
    """The characters after the version: 74 random bits, read from the operating system for many ids at once."""
    digits = os.urandom(10 * _AT_ONCE).hex().encode()
    return iter(
        [
            b"%b-%c%b-%b" % (part[:3], _VARIANT[part[3] & 3], part[4:7], part[7:19])
            for part in (digits[at : at + 20] for at in range(0, len(digits), 20))
        ]
    )


T = TypeVar("T")

_KNOWN: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def call_in_children(one: T, forked: Callable[[T], None]) -> None:
    """Call `forked(one)` in each child of this process, as long as `one` lives. `forked` must not refer to it."""
    _KNOWN[one] = forked


def never_release(client: object) -> None:
    """Leak the parent's client: its release, even at exit, would wait for threads that do not exist."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _in_child() -> None:
    renew_lock()
    forget_random()
    for one, forked in list(_KNOWN.items()):
        forked(one)


os.register_at_fork(after_in_child=_in_child)
