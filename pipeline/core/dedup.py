"""Dedup tables: when an event is a duplicate, the rows that record it, and when they expire. Pure.

Each deduplicated topic of a task has these rows, under prefixes that no table uses:

    ids       topic, digest of the id                     -> the clock when the id was first seen
    expiries  topic, newest clock among them, its digest  -> digests of ids that were seen together
    clock     topic                                       -> the clock, and the latest clock of an id that was seen
                                                             again after it had expired

A clock is 8 bytes of big-endian milliseconds. So the expiries are sorted by due time, and expired ids are found
without a scan of the ids. Invariant: each id row is listed in an expiry whose newest clock is not below the clock of
the row. So the due expiries list every id row that may be deleted. An id that was seen again after it had expired has
a newer row, which a later expiry lists; that row is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b

__all__ = [
    "CLOCK_SIZE",
    "advance",
    "clock_key",
    "digest",
    "digests_in",
    "expiries",
    "expiry_clock",
    "expiry_prefix",
    "expiry_start",
    "forgotten",
    "id_prefix",
    "is_over",
    "pack_clock",
    "pack_state",
    "topic_tag",
    "unpack_clock",
    "unpack_state",
]

CLOCK_SIZE = 8
DIGEST_SIZE = 16
TAG_SIZE = 4
DIGESTS_PER_EXPIRY = 1024

# A table's prefix never begins with a zero byte (pipeline.api.table); the key of the applied position is below these.
_IDS = b"\x00di"
_EXPIRIES = b"\x00dx"
_CLOCK = b"\x00dc"
_EMPTY = blake2b(digest_size=DIGEST_SIZE)


def topic_tag(topic: str) -> bytes:
    """The topic's 4 bytes in the keys. They are a hash of its name, so declaring another topic changes no key."""
    return blake2b(topic.encode(), digest_size=TAG_SIZE).digest()


def id_prefix(topic: str, rows: bytes = b"") -> bytes:
    """The part of an id row's key before the digest. `rows`: `core.inputs.row_prefix` of the partition in format 2."""
    return rows + _IDS + topic_tag(topic)


def expiry_prefix(topic: str, rows: bytes = b"") -> bytes:
    """The prefix of all expiries of a topic."""
    return rows + _EXPIRIES + topic_tag(topic)


def clock_key(topic: str, rows: bytes = b"") -> bytes:
    """The key of the topic's clock row."""
    return rows + _CLOCK + topic_tag(topic)


def digest(event_id: bytes) -> bytes:
    """A 16-byte digest of an id. Among 10^12 ids, two are equal with a probability of 10^-15."""
    state = _EMPTY.copy()  # takes two thirds of the time of a new one with its parameters
    state.update(event_id)
    return state.digest()


def pack_state(clock_ms: int, again_ms: int) -> bytes:
    """The value of the clock row.

    `again_ms`: the latest first-seen clock of an id seen again after it had expired, or -1.
    """
    return pack_clock(clock_ms) + (pack_clock(again_ms) if again_ms >= 0 else b"")


def unpack_state(data: bytes | None) -> tuple[int, int]:
    """(clock, `again_ms`) from the value of the clock row. Before the row is written, the clock is 0."""
    if data is None:
        return 0, -1
    return unpack_clock(data[:CLOCK_SIZE]), unpack_clock(data[CLOCK_SIZE:]) if data[CLOCK_SIZE:] else -1


def pack_clock(clock_ms: int) -> bytes:
    return clock_ms.to_bytes(CLOCK_SIZE, "big")


def unpack_clock(data: bytes) -> int:
    return int.from_bytes(data, "big")


def advance(clock_ms: int, timestamp_ms: int, wall_ms: int) -> int:
    """The clock after a record with this timestamp (negative if it has none) that was read at `wall_ms`.

    The clock never goes back. It never passes the present either, because a timestamp in the far future would expire
    every id.
    """
    return max(clock_ms, wall_ms if timestamp_ms < 0 else min(timestamp_ms, wall_ms))


def is_over(clock_ms: int, seen_ms: int, ttl_ms: int) -> bool:
    """Whether an id first seen at `seen_ms` has expired. It has not if its age is exactly the time-to-live."""
    return clock_ms - seen_ms > ttl_ms


def expiries(topic: str, ids: Mapping[bytes, bytes], rows: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the expiries for id rows. `rows` maps key to clock, in the order of the clocks.

    The key contains the last digest, to which the clock belongs. So two expiries with equal clocks differ: no id is
    first seen twice at one clock. (The first digest would not do: its id is older, so it may have expired and been
    seen again.)
    """
    prefix = expiry_prefix(topic, rows)
    listed = list(ids.items())
    for start in range(0, len(listed), DIGESTS_PER_EXPIRY):
        part = listed[start : start + DIGESTS_PER_EXPIRY]
        digests = [key[len(prefix) :] for key, _ in part]
        yield prefix + part[-1][1] + digests[-1], b"".join(digests)


def expiry_start(topic: str, clock_ms: int, rows: bytes = b"") -> bytes:
    """A key below every expiry whose newest clock is this one or later, and above all other expiries."""
    return expiry_prefix(topic, rows) + pack_clock(clock_ms)


def expiry_clock(key: bytes) -> int:
    """The newest clock among the ids of an expiry. A digest follows it."""
    return unpack_clock(key[-DIGEST_SIZE - CLOCK_SIZE : -DIGEST_SIZE])


def digests_in(expiry: bytes) -> Sequence[bytes]:
    """The digests in the value of an expiry."""
    return [expiry[place : place + DIGEST_SIZE] for place in range(0, len(expiry), DIGEST_SIZE)]


def forgotten(rows: Iterable[tuple[bytes, bytes | None]], clock_ms: int, ttl_ms: int) -> Iterator[bytes]:
    """The keys of the id rows that have expired. None: there is no such row."""
    for key, seen in rows:
        if seen is not None and is_over(clock_ms, unpack_clock(seen), ttl_ms):
            yield key
