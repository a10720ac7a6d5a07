"""Dedup tables: when an event counts as seen, in which rows of a task's state that is kept, when it is forgotten. Pure.

For each deduplicated topic of a task there are, behind prefixes that no table has:

    ids       topic, digest of the id                     -> the clock when it was first seen
    expiries  topic, newest clock among them, its digest  -> digests of ids that were seen together
    clock     topic                                       -> the clock, and the latest one of an id that came again

A clock is 8 bytes of big-endian milliseconds, so expiries lie in the order in which they are due, and what is due is
found without looking at the ids. Invariant: every row of an id is named by an expiry whose newest clock is not below
the row's. So expiries that are over lead to all that may go; a row that is younger than one of them (its id came again
after its time) is named by another expiry, too, and stays.
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
_PREFIX_SIZE = len(_IDS) + TAG_SIZE


def topic_tag(topic: str) -> bytes:
    """The topic's 4 bytes in the keys: a hash of its name, so that declaring another topic moves nothing."""
    return blake2b(topic.encode(), digest_size=TAG_SIZE).digest()


def id_prefix(topic: str) -> bytes:
    """What the digest of an id follows in the key of its row."""
    return _IDS + topic_tag(topic)


def expiry_prefix(topic: str) -> bytes:
    """What all expiries of a topic begin with."""
    return _EXPIRIES + topic_tag(topic)


def clock_key(topic: str) -> bytes:
    """Where the topic's clock is."""
    return _CLOCK + topic_tag(topic)


def digest(event_id: bytes) -> bytes:
    """16 bytes in place of an id of any length: two of 10^12 ids are alike with a probability of 10^-15."""
    return blake2b(event_id, digest_size=DIGEST_SIZE).digest()


def pack_state(clock_ms: int, again_ms: int) -> bytes:
    """The clock's row. `again_ms`: when ids that came again after their time were seen first, at the latest, or -1."""
    return pack_clock(clock_ms) + (pack_clock(again_ms) if again_ms >= 0 else b"")


def unpack_state(data: bytes | None) -> tuple[int, int]:
    """(clock, clock of what came again) in the clock's row; before it is written the clock is 0."""
    if data is None:
        return 0, -1
    return unpack_clock(data[:CLOCK_SIZE]), unpack_clock(data[CLOCK_SIZE:]) if data[CLOCK_SIZE:] else -1


def pack_clock(clock_ms: int) -> bytes:
    return clock_ms.to_bytes(CLOCK_SIZE, "big")


def unpack_clock(data: bytes) -> int:
    return int.from_bytes(data, "big")


def advance(clock_ms: int, timestamp_ms: int, wall_ms: int) -> int:
    """The clock after a record of this timestamp (below 0: it has none) that was read at `wall_ms`.

    It never goes back, and no timestamp takes it beyond the present: one from the far future would otherwise be
    the end of every id.
    """
    return max(clock_ms, wall_ms if timestamp_ms < 0 else min(timestamp_ms, wall_ms))


def is_over(clock_ms: int, seen_ms: int, ttl_ms: int) -> bool:
    """Whether an id seen at `seen_ms` is forgotten. At exactly its time-to-live it is not."""
    return clock_ms - seen_ms > ttl_ms


def expiries(topic: str, ids: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the expiries for rows of ids, key to clock, in the order of their clocks.

    Two of equal clock are told apart by the last digest, whose clock it is: no id is seen for the first time twice at
    one clock. (The first one may be: it is older, may be over by then, and come again.)
    """
    prefix = expiry_prefix(topic)
    rows = list(ids.items())
    for start in range(0, len(rows), DIGESTS_PER_EXPIRY):
        part = rows[start : start + DIGESTS_PER_EXPIRY]
        digests = [key[_PREFIX_SIZE:] for key, _ in part]
        yield prefix + part[-1][1] + digests[-1], b"".join(digests)


def expiry_start(topic: str, clock_ms: int) -> bytes:
    """Below every expiry whose newest clock is this one or later, above all others."""
    return expiry_prefix(topic) + pack_clock(clock_ms)


def expiry_clock(key: bytes) -> int:
    """The newest clock among the ids of an expiry."""
    return unpack_clock(key[_PREFIX_SIZE : _PREFIX_SIZE + CLOCK_SIZE])


def digests_in(expiry: bytes) -> Sequence[bytes]:
    """The digests in the value of an expiry."""
    return [expiry[place : place + DIGEST_SIZE] for place in range(0, len(expiry), DIGEST_SIZE)]


def forgotten(rows: Iterable[tuple[bytes, bytes | None]], clock_ms: int, ttl_ms: int) -> Iterator[bytes]:
    """The keys of those rows of ids whose time is over; None is no row."""
    for key, seen in rows:
        if seen is not None and is_over(clock_ms, unpack_clock(seen), ttl_ms):
            yield key
