"""The parts of Kafka's wire format that only tests need: error codes of answers, and a few requests."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum

from pipeline.broker.wire import Reader, Request, read_frame, send_frame

__all__ = ["Api", "allows_creation", "coordinator_of", "error_code", "matches"]


class Api(IntEnum):
    """The requests that tests use."""

    PRODUCE = 0
    LIST_OFFSETS = 2
    METADATA = 3
    FIND_COORDINATOR = 10
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


_FLEXIBLE_FROM: Mapping[int, int] = {
    Api.PRODUCE: 9,
    Api.METADATA: 9,
    Api.FIND_COORDINATOR: 3,
    Api.INIT_PRODUCER_ID: 2,
    Api.ADD_PARTITIONS_TO_TXN: 3,
    Api.END_TXN: 3,
}
_TRANSACTION = 1  # the kind of coordinator
_TIMEOUT_S = 5.0


def matches(request: Request, api: Api, containing: Iterable[bytes]) -> bool:
    """Whether it is of this kind and contains all of these names of topics and transactional ids."""
    return request.api == api and all(name in request.frame for name in containing)


def _reader(request: Request, answer: bytes) -> Reader:
    first = _FLEXIBLE_FROM.get(request.api)
    return Reader(answer, flexible=first is not None and request.version >= first)


def error_code(request: Request, answer: bytes) -> int:
    """The error code of an answer; that of the first partition if each has its own."""
    reader = _reader(request, answer)
    reader.header()
    if request.api == Api.PRODUCE:
        return _first_partition(reader)
    reader.int32()  # throttle time
    if request.api == Api.ADD_PARTITIONS_TO_TXN:
        return _first_partition(reader)
    return reader.int16()


def coordinator_of(servers: str, transactional_id: str) -> int:
    """The transaction coordinator of the id, according to the first of `servers` that knows it; -1: none knows it."""
    name = transactional_id.encode()
    header = struct.pack(">hhih", Api.FIND_COORDINATOR, 1, 1, -1)
    frame = header + struct.pack(">h", len(name)) + name + struct.pack(">b", _TRANSACTION)
    for server in servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), _TIMEOUT_S) as connection:
                send_frame(connection, frame)
                answer = read_frame(connection)
        except OSError:
            continue
        reader = Reader(answer or b"", flexible=False)
        if answer is not None and error_code(Request.of(frame), answer) == 0:
            reader.header()
            reader.skip(6)  # throttle time, error
            reader.string()
            return reader.int32()
    return -1


def allows_creation(metadata: Request) -> bool:
    """Whether a Metadata request lets the broker create the topics that it names. From version 11 on."""
    assert metadata.version >= 11, metadata.version
    return metadata.frame[-3] != 0  # followed by: whether to include permissions, and no tagged fields


def _first_partition(reader: Reader) -> int:
    reader.count()
    reader.string()  # the topic
    reader.count()
    reader.int32()  # the partition
    return reader.int16()
