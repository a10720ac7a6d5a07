"""An address where nothing listens at first, and which forwards to a Kafka later."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

__all__ = ["LateListener"]

_HOST = "127.0.0.1"


class LateListener:
    """Refuses connections until `open`, then forwards bytes to and from the Kafka at `servers`.

    The answers contain the brokers' own addresses, to which clients then connect directly.
    """

    def __init__(self, servers: str) -> None:
        host, _, port = servers.partition(",")[0].rpartition(":")
        self._target = (host, int(port))
        self._socket = socket.socket()
        self._socket.bind((_HOST, 0))  # keeps the port; without `listen` it refuses connections
        self.carries = True
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []
        self.servers = f"{_HOST}:{self._socket.getsockname()[1]}"

    def open(self, *, carries: bool = True) -> None:
        """Accept connections from now on. Without `carries`, close each, like a proxy without a Kafka."""
        self.carries = carries
        self._socket.listen()
        self._begin(self._serve)

    def close(self) -> None:
        """End the connections, and accept no more."""
        for open_socket in (self._socket, *self._clients):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _begin(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                if self.carries:
                    self._clients.append(client)
                    self._begin(self._carry_both, client)
                else:
                    client.close()

    def _carry_both(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as broker:
            back = self._begin(_carry, broker, client)
            _carry(client, broker)
            back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
