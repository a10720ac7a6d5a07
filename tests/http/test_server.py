"""The server on a real socket: its limits, and that no client can occupy it."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from pipeline.http import server
from pipeline.http.server import MAX_CONNECTIONS, HttpServer
from tests.support.waiting import wait_until

LOOPBACK = "127.0.0.1"


def hello(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    body = b"x" * (4 << 20) if environ["PATH_INFO"] == "/large" else b"hello"
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def running() -> Iterator[HttpServer]:
    running = HttpServer(hello, LOOPBACK, 0)
    running.start()
    yield running
    running.stop()


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20)
    try:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.status, answer.read()
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=20)


def test_requests_are_answered_on_kept_connections(running: HttpServer) -> None:
    """Prometheus keeps its connection between two scrapes."""
    with closing(http.client.HTTPConnection(LOOPBACK, running.port, timeout=20)) as connection:
        for _ in range(3):
            connection.request("GET", "/")
            with connection.getresponse() as answer:
                assert answer.read() == b"hello"


def test_clients_that_send_slowly_occupy_no_thread(running: HttpServer) -> None:
    """There are more of them than threads, and a probe is still answered."""
    with ExitStack() as stack:
        for _ in range(4 * server.THREADS):
            slow = stack.enter_context(connected(running.port))
            slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert get(running.port) == (200, b"hello")


def test_clients_that_read_slowly_occupy_no_thread(running: HttpServer) -> None:
    """Their answers wait in buffers."""
    with ExitStack() as stack:
        for _ in range(4 * server.THREADS):
            slow = stack.enter_context(connected(running.port))
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert slow.recv(1) == b"H"
        assert get(running.port) == (200, b"hello")


def test_an_idle_connection_is_closed(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise clients that died without a FIN would use up all connections."""
    monkeypatch.setattr(server, "CONNECTION_S", 0.2)
    with connected(running.port) as idle:
        assert idle.recv(1) == b""


def test_a_client_that_trickles_is_closed(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection active, but not forever."""
    monkeypatch.setattr(server, "CONNECTION_S", 0.5)
    with connected(running.port) as slow:
        slow.settimeout(0.05)

        def closed() -> bool:
            try:
                slow.sendall(b"G")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(closed, lambda: "the connection is still open", within_s=20)


def test_more_connections_than_allowed_wait(running: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost the process neither descriptors nor memory, and are served when others have been closed."""
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 8):
            stack.enter_context(connected(running.port))
        wait_until(lambda: len(running._connections) >= MAX_CONNECTIONS, lambda: str(running._connections))
        answered = threading.Event()

        def ask() -> None:
            get(running.port)
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        assert not answered.wait(0.3)
        assert len(running._connections) <= MAX_CONNECTIONS + 2  # with the listening socket and a pipe
        monkeypatch.setattr(server, "CONNECTION_S", 0.1)
        assert answered.wait(20)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\r\n" * 10_000,
        bytes(range(256)) * 100,
    ],
)
def test_garbage_harms_nobody(running: HttpServer, sent: bytes) -> None:
    """Port scanners and misdirected clients meet every open port."""
    with connected(running.port) as odd:
        odd.settimeout(1)
        try:
            odd.sendall(sent)
            odd.recv(1024)
        except OSError:
            pass  # it was closed meanwhile, or waits for the rest
        assert get(running.port) == (200, b"hello")


def test_a_stop_closes_connections_and_frees_the_port() -> None:
    """A worker that is restarted at once gets its port again."""
    first = HttpServer(hello, LOOPBACK, 0)
    first.start()
    with connected(first.port) as client:
        assert get(first.port) == (200, b"hello")
        first.stop()
        assert client.recv(1) == b""
    second = HttpServer(hello, LOOPBACK, first.port)
    second.start()
    assert get(second.port) == (200, b"hello")
    second.stop()


def test_an_address_that_is_taken_is_an_error(running: HttpServer) -> None:
    """The caller decides what this means."""
    with pytest.raises(OSError, match="in use"):
        HttpServer(hello, LOOPBACK, running.port).start()


def test_a_server_listens_on_ipv6_too() -> None:
    """`::1` is a loopback address as well."""
    running = HttpServer(hello, "::1", 0)
    try:
        running.start()
    except OSError as error:
        pytest.skip(f"this host has no IPv6: {error}")
    with socket.create_connection(("::1", running.port), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    running.stop()
