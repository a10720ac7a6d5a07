"""Requests the metadata of a Kafka node over a plain socket: one Metadata request (version 2).

A node that lists all nodes of its cluster has registered with the controller and serves clients. An open port alone
does not show this. The wire format is that of the protocol guide (kafka.apache.org/protocol).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

__all__ = ["View", "view_of"]

_METADATA, _VERSION, _CORRELATION = 3, 2, 77
_MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class View:
    """The metadata of a cluster according to one node."""

    cluster_id: str
    node_ids: frozenset[int]
    controller_id: int


def view_of(port: int, *, host: str = "127.0.0.1", timeout_s: float = 1.0) -> View | None:
    """The view of the node at `host:port`; None if nothing there answers like Kafka."""
    client = b"pipeline-probe"
    header = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, len(client)) + client
    no_topics = struct.pack(">i", 0)
    request = header + no_topics
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            size, correlation = struct.unpack(">ii", _read(connection, 8))
            if correlation != _CORRELATION or not 4 <= size <= _MAX_ANSWER:
                return None
            return _parse(_read(connection, size - 4))
    except (OSError, EOFError, struct.error, UnicodeDecodeError, IndexError):
        return None


def _read(connection: socket.socket, size: int) -> bytes:
    answer = bytearray()
    while len(answer) < size:
        part = connection.recv(size - len(answer))
        if not part:
            raise EOFError
        answer += part
    return bytes(answer)


def _parse(answer: bytes) -> View:
    (count,), at = struct.unpack_from(">i", answer), 4
    ids = set()
    for _ in range(count):
        (node_id,) = struct.unpack_from(">i", answer, at)
        _host, at = _string(answer, at + 4)
        _rack, at = _string(answer, at + 4)  # 4: the port
        ids.add(node_id)
    cluster_id, at = _string(answer, at)
    (controller_id,) = struct.unpack_from(">i", answer, at)
    return View(cluster_id or "", frozenset(ids), controller_id)


def _string(answer: bytes, at: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from(">h", answer, at)
    at += 2
    if length < 0:
        return None, at
    if at + length > len(answer):
        raise EOFError
    return answer[at : at + length].decode(), at + length
