"""A proxy between PostgreSQL clients and their server, which cuts connections around a COMMIT.

    client --> a port on loopback --> the server's socket

It recognises COMMIT as a simple query and as a parsed statement.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from enum import Enum
from pathlib import Path

__all__ = ["Cut", "PostgresProxy"]

_COMMIT = re.compile(rb"\0COMMIT\0|^Q....COMMIT\0|P....\0COMMIT\0", re.DOTALL)
_CHUNK = 65536


class Cut(Enum):
    """What happens to a connection whose client sends COMMIT."""

    BEFORE = "the server never gets it"
    AFTER = "the server does it, and its answer is lost"


class PostgresProxy:
    """`cut`: the fault of the next COMMIT; None: none. `close` ends every connection."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = str(upstream)
        self._cut: Cut | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = {self._listener}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._was_cut = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def cut_next_commit(self, cut: Cut) -> None:
        """Cut the connection at the next COMMIT from now on."""
        self._was_cut.clear()
        with self._lock:
            self._cut = cut

    def wait_until_cut(self, within_s: float) -> None:
        assert self._was_cut.wait(within_s), "no COMMIT came"

    @property
    def was_cut(self) -> bool:
        return self._was_cut.is_set()

    def close(self) -> None:
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            _end(one)
        self._listener.close()
        for thread in self._threads:
            thread.join(30.0)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._upstream)
            except OSError:  # an unreachable server
                client.close()
                server.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            # Each thread closes only the far end of its own pair, so that no descriptor is reused meanwhile.
            done = threading.Barrier(2)
            swallow = threading.Event()
            self._start(lambda c=client, s=server, d=done, w=swallow: self._requests(c, s, d, w))
            self._start(lambda c=client, s=server, d=done, w=swallow: self._answers(c, s, d, w))

    def _requests(
        self, client: socket.socket, server: socket.socket, done: threading.Barrier, swallow: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                cut = self._taken(data)
                if cut is not None:
                    if cut is Cut.AFTER:
                        swallow.set()  # before the answer can arrive
                        server.sendall(data)
                    else:
                        _end(server)
                        self._was_cut.set()
                    break
                server.sendall(data)
        if not swallow.is_set():
            _end(server)
            _end(client)
        done.wait()
        self._forget(client)

    def _answers(
        self, client: socket.socket, server: socket.socket, done: threading.Barrier, swallow: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                if swallow.is_set():
                    self._was_cut.set()  # the server has committed
                    break
                client.sendall(data)
        _end(client)
        _end(server)
        done.wait()
        self._forget(server)

    def _taken(self, data: bytes) -> Cut | None:
        if not _COMMIT.search(data):
            return None
        with self._lock:
            cut, self._cut = self._cut, None
        return cut

    def _forget(self, one: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(one)
        one.close()

    def _start(self, run: object) -> None:
        thread = threading.Thread(target=run, daemon=True, name="postgres-proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
