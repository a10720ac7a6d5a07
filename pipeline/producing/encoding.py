"""A caller's key, value, id and headers as the bytes of a record, checked as `ctx.send` checks them.

By the ids of events, duplicates are detected. An id is in the header `event-id`, as bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.api.declarations import DeclaredTopic, Topic, declared_topic
from pipeline.api.encode_errors import LATEST_MS, REFUSALS, check_header_name, refuse_key, refuse_value
from pipeline.core.names import EVENT_ID_HEADER
from pipeline.errors import ConfigError
from pipeline.forks import in_children

__all__ = ["Encoded", "Encoder", "event_id", "new_event_id"]

Headers = Sequence[tuple[str, bytes]]

_MOST_BYTES = 1024
_COUNTS = [b"%03x" % count for count in range(256)]
_VARIANT = b"89ab"


class _IdSuffixes:
    """Suffixes of ids that are not used yet, and the prefix of all ids of this millisecond."""

    unused: Iterator[bytes] = iter(())
    start: tuple[int, bytes] = (0, b"")


def new_event_id() -> bytes:
    """A UUID of version 7 (RFC 9562) as text: 36 bytes that begin with the time, so ids sort approximately by time.

    Any thread may call it: taking from an iterator is one step, so no suffix is taken twice.
    """
    milliseconds = time.time_ns() // 1_000_000
    known, start = _IdSuffixes.start
    if milliseconds != known:
        text = b"%012x" % (milliseconds & 0xFFFF_FFFF_FFFF)
        start = b"%b-%b-7" % (text[:8], text[8:])
        _IdSuffixes.start = milliseconds, start
    suffix = next(_IdSuffixes.unused, None)
    if suffix is None:
        more = _more_suffixes()
        suffix = next(more)
        _IdSuffixes.unused = more
    return start + suffix


def _forget_suffixes() -> None:
    """In a forked child: discard the suffixes, which the parent uses."""
    _IdSuffixes.unused = iter(())


def event_id(given: str | bytes) -> bytes:
    """A caller's id as UTF-8 bytes. Raises TypeError, ValueError (empty or too long)."""
    if type(given) is not bytes:
        if not isinstance(given, str):
            raise TypeError(f"an event's id is str or bytes, not {type(given).__name__}")
        given = given.encode()
    if not 0 < len(given) <= _MOST_BYTES:
        raise ValueError(f"an event's id has 1 to {_MOST_BYTES} bytes, not {len(given)}")
    return given


def _more_suffixes() -> Iterator[bytes]:
    """The characters after the version: a count, and 62 random bits that these suffixes share.

    So the operating system is asked for random bits once for many ids, and the ids of a millisecond differ.
    """
    digits = os.urandom(8).hex().encode()
    rest = b"-%c%b-%b" % (_VARIANT[digits[0] & 3], digits[1:4], digits[4:])
    return iter([count + rest for count in _COUNTS])


in_children(_forget_suffixes)


class Encoded(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An encoded event. `timestamp_ms` 0: the time of the send. `size`: in bytes, with the headers."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes]]
    id: bytes
    size: int


class Encoder:
    """Turns typed events into records, at most `max_event_bytes` each. Threads may share it."""

    def __init__(self, max_event_bytes: int) -> None:
        self._most = max_event_bytes
        # name, key encoder, value codec's `admit`; by topic, whose hash is its identity
        self._known: dict[Topic[Any, Any], tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {}

    def encode(
        self,
        topic: Topic[Any, Any],
        key: Any,
        value: Any,
        given_id: str | bytes | None,
        headers: Headers,
        timestamp_ms: int | None,
    ) -> Encoded:
        """Raises TypeError, ValueError, OverflowError, and ConfigError for what is no topic of an app."""
        try:
            name, encode_key, admit = self._known[topic]
        except (KeyError, TypeError):
            name, encode_key, admit = self._first_use(topic)
        try:
            key_data = encode_key(key)
        except REFUSALS as error:
            refuse_key(error, f"topic {name}", declared_topic(topic).key, key)
        try:
            data = admit(value)[0]
        except REFUSALS as error:
            refuse_value(error, f"topic {name}")
        identity = new_event_id() if given_id is None else event_id(given_id)
        size = len(identity) + 16
        if key_data is not None:
            size += len(key_data)
        if data is not None:
            size += len(data)
        carried = [(EVENT_ID_HEADER, identity)]
        if headers:
            size += _add(carried, headers)
        if size > self._most:
            raise ValueError(
                f"an event of {size} bytes for topic {name} is over max_event_bytes ({self._most}): send a smaller "
                "one, or raise that setting and max.message.bytes of the topic"
            )
        if timestamp_ms is None:
            timestamp_ms = 0
        elif type(timestamp_ms) is not int or not 0 < timestamp_ms <= LATEST_MS:
            raise ValueError(
                f"timestamp_ms is {timestamp_ms!r}; it must be a number of milliseconds above 0, of 64 bits"
            )
        return Encoded(name, key_data, data, timestamp_ms, carried, identity, size)

    def _first_use(self, topic: Any) -> tuple[str, Callable[[Any], Any], Callable[[Any], Any]]:
        if not isinstance(topic, DeclaredTopic):
            raise ConfigError(
                f"{topic!r} is not a topic",
                hint="send takes what app.topic(...) returned, in this or another app",
            )
        known = self._known[topic] = topic.name, topic.key.encode, topic.value.admit
        return known


def _add(carried: list[tuple[str, bytes]], headers: Headers) -> int:
    """Append the caller's headers. Returns their size in bytes. Raises TypeError, ValueError."""
    size = 0
    for name, content in headers:
        if type(name) is not str or type(content) is not bytes:
            raise TypeError(f"a header is (str, bytes), not {(name, content)!r}")
        check_header_name(name)
        if name == EVENT_ID_HEADER:
            raise ValueError(f"the header {EVENT_ID_HEADER} is the event's id: say id=...")
        size += len(name.encode()) + len(content) + 8
        carried.append((name, content))
    return size
