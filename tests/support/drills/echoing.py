"""A broker without Kafka, which answers each request with its correlation id, and a client of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from pipeline.broker.wire import read_frame, send_frame

__all__ = ["EchoBroker", "connect", "request"]

_API = 99  # no address is in its answer
_ANSWER_S = 20.0


class EchoBroker:
    """Listens on a free port of this host until `close`. `requests`: the number of those that have arrived."""

    def __init__(self) -> None:
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def servers(self) -> str:
        """As in `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """End all connections; no new ones are accepted."""
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_ANSWER_S)
        for each in (self._listener, *self._connections):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(lambda connection=connection: self._answer(connection))  # type: ignore[misc]

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (frame := read_frame(connection)) is not None:
                self.requests += 1
                send_frame(connection, frame[4:8])

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()


def connect(servers: str) -> socket.socket:
    """A connection to the first of these brokers."""
    host, _, port = servers.partition(",")[0].rpartition(":")
    return socket.create_connection((host, int(port)), _ANSWER_S)


def request(connection: socket.socket, correlation: int) -> None:
    """Send a request. `read_frame` reads its answer, which is the correlation id as 4 bytes."""
    send_frame(connection, struct.pack(">hhi", _API, 0, correlation))
