"""Records as they are read from and written to Kafka, and the partition of a key: `partition_of`.

Co-partitioned topics and restored states require that every producer maps a key to the same partition. So
`partition_of` must always agree with librdkafka's `murmur2_random`. Source: MurmurHash2 by Austin Appleby, 32 bits,
with the seed that Apache Kafka uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

__all__ = [
    "EARLIEST_MS",
    "Output",
    "Record",
    "iso_time",
    "kept_timestamp",
    "murmur2",
    "partition_of",
    "readable",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The Kafka client treats timestamp 0 as "none" and sends the current time. This is the closest one it can send.
EARLIEST_MS = 1

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


class Record(Protocol):
    """One consumed record. The Kafka client's message type implements it, so no record is copied."""

    def topic(self) -> Any: ...
    def partition(self) -> Any: ...
    def offset(self) -> Any: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


class Output(NamedTuple):
    """One record to produce. `timestamp_ms` 0 means the current time. Headers may be empty."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes | None]] = ()


def kept_timestamp(record: Record) -> int:
    """`Output.timestamp_ms` for a copy with the record's timestamp; the current time if the record has none."""
    timestamp_ms = record.timestamp()[1]
    return timestamp_ms or EARLIEST_MS if timestamp_ms >= 0 else 0


def iso_time(milliseconds: int) -> str:
    """The time in UTC, as in 2026-01-31T00:00:00.000Z."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def readable(data: bytes | None) -> str:
    """The data as text on one line, with control characters escaped; as hex if it is not UTF-8."""
    if data is None:
        return "(null)"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def murmur2(data: bytes) -> int:
    """The 32-bit hash, unsigned."""
    length = len(data)
    hashed = _SEED ^ length
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        hashed = hashed * _MULTIPLIER & _MASK ^ word
    if whole < length:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _MASK
    return hashed ^ hashed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a record with this key. A record without a key can go to any partition."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
