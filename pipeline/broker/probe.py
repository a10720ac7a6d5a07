"""Requests the metadata of a Kafka node over a plain socket: one Metadata request (version 2).

A node that lists all nodes of its cluster has registered with the controller and serves clients. An open port alone
does not show this. The wire format is that of the protocol guide (kafka.apache.org/protocol).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from pipeline.broker.wire import METADATA, Reader, read_frame, send_frame

__all__ = ["View", "view_of"]

_VERSION, _CORRELATION = 2, 77
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
    header = struct.pack(">hhih", METADATA, _VERSION, _CORRELATION, len(client)) + client
    no_topics = struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            send_frame(connection, header + no_topics)
            answer = read_frame(connection, _MAX_ANSWER)
        return None if answer is None else _parse(answer)
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _parse(answer: bytes) -> View | None:
    """None for an answer to another request."""
    reader = Reader(answer, flexible=False)
    if reader.int32() != _CORRELATION:
        return None
    ids = set()
    for _ in range(reader.count()):
        ids.add(reader.int32())
        reader.place()
        reader.string()  # rack
    return View(reader.string(), frozenset(ids), reader.int32())
