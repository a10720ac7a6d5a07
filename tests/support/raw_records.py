"""Writes records to a real Kafka byte by byte, as other clients may and librdkafka never would.

The format is the protocol guide's (kafka.apache.org/protocol): a Produce request, version 3, with one record batch of
format 2.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.broker.wire import read_frame, send_frame
from tests.support.waiting import wait_until

__all__ = ["RawRecord", "write_raw"]

_PRODUCE_VERSION = 3
_TIMEOUT_S = 30.0
_FORMAT = 2
_NOT_YET = frozenset({3, 5, 6})  # errors of a new topic: unknown topic, no leader, not the leader
_NOT_IDEMPOTENT = (-1, -1, -1)  # producer id, epoch, first sequence number


class RawRecord(NamedTuple):
    """The bytes of a record. `timestamp_ms`: None is the current time."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp_ms: int | None = None


def write_raw(servers: str, topic: str, records: Sequence[RawRecord], partition: int = 0) -> int:
    """Write a batch of records to a partition led by `servers`. Returns the broker's error code; 0: success."""
    batch, name = _batch(records, time.time_ns() // 1_000_000), topic.encode()
    request = b"".join(
        (
            struct.pack(">hhih", 0, _PRODUCE_VERSION, 1, -1),  # API, version, correlation id, no client id
            struct.pack(">hhi", -1, -1, 10_000),  # no transaction, acks of all, time-out
            struct.pack(">ih", 1, len(name)) + name,
            struct.pack(">iii", 1, partition, len(batch)) + batch,
        )
    )
    codes: list[int] = []

    def answered() -> bool:
        codes.append(_error_code(servers, request, 4 + 4 + 2 + len(name) + 4 + 4))
        return codes[-1] not in _NOT_YET

    wait_until(answered, lambda: f"the leader of {topic}[{partition}] answers {codes[-1]}", _TIMEOUT_S)
    return codes[-1]


def _error_code(servers: str, request: bytes, at: int) -> int:
    host, _, port = servers.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), _TIMEOUT_S) as connection:
        send_frame(connection, request)
        answer = read_frame(connection)
    assert answer is not None, "the broker closed the connection"
    (code,) = struct.unpack_from(">h", answer, at)
    return int(code)


def _batch(records: Sequence[RawRecord], now_ms: int) -> bytes:
    times = [now_ms if record.timestamp_ms is None else record.timestamp_ms for record in records]
    first = times[0]
    body = b"".join(
        _sized(
            b"\x00"
            + _varint(when - first)
            + _varint(number)
            + _field(record.key)
            + _field(record.value)
            # The number of headers, then each name and value.
            + _varint(len(record.headers))
            + b"".join(_field(name) + _field(value) for name, value in record.headers)
        )
        for number, (record, when) in enumerate(zip(records, times, strict=True))
    )
    counted = struct.pack(">hiqqqhii", 0, len(records) - 1, first, max(times), *_NOT_IDEMPOTENT, len(records))
    checked = counted + body
    return struct.pack(">qiibI", 0, 9 + len(checked), -1, _FORMAT, _crc32c(checked)) + checked


def _field(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _sized(data)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """A signed number in zigzag encoding, with seven bits per byte."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append((left & 0x7F) | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _crc32c(data: bytes) -> int:
    """The Castagnoli checksum, which Python's standard library does not have."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
