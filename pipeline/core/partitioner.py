"""Where a key's records go: the Java client's default partitioner. Pure.

Co-partitioned topics and restored states require that every producer maps a key to the same partition. So this must
always agree with librdkafka's `murmur2_random`. Source: MurmurHash2 by Austin Appleby, 32 bits, with the seed that
Apache Kafka uses.
"""

from __future__ import annotations

__all__ = ["murmur2", "partition_of"]

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


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
