"""The probe takes for a Kafka only what answers as one."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.broker.ports import HOST, choose_ports
from pipeline.broker.wire import View, view_of

_CORRELATION = 77


@contextmanager
def _server(answer: bytes) -> Iterator[int]:
    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)

    with socket.create_server((HOST, 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(5)


def _text(value: str | None) -> bytes:
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()


def _metadata() -> bytes:
    brokers = [(1, "127.0.0.1", 9092, None), (2, "127.0.0.1", 9093, "r")]
    body = struct.pack(">ii", _CORRELATION, len(brokers))
    for node_id, host, port, rack in brokers:
        body += struct.pack(">i", node_id) + _text(host) + struct.pack(">i", port) + _text(rack)
    return body + _text("cluster") + struct.pack(">ii", 2, 0)


def test_answer_of_a_cluster_is_read() -> None:
    """Nodes, cluster and controller decide whether the cluster is complete and ours."""
    body = _metadata()
    with _server(struct.pack(">i", len(body)) + body) as port:
        assert view_of(port, timeout_s=60.0) == View("cluster", frozenset({1, 2}), 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        struct.pack(">i", 100) + _metadata()[:20],
        b"\0\0\0\5\0\0\0\x4d\xff",
    ],
    ids=["closes", "http", "cut short", "too short"],
)
def test_anything_else_is_no_kafka(answer: bytes) -> None:
    """Another program on the port must neither pass for a broker nor break the start."""
    with _server(answer) as port:
        assert view_of(port) is None


def test_a_closed_port_is_not_a_kafka() -> None:
    """The usual case while a broker starts."""
    assert view_of(choose_ports(1)[0]) is None


def test_silence_ends_with_the_time_out() -> None:
    """A program that accepts and says nothing must not hang the start."""
    with socket.create_server((HOST, 0)) as server:
        assert view_of(server.getsockname()[1], timeout_s=0.05) is None
