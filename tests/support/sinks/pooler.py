"""A connection pooler like PgBouncer, on its own port: `Pooler`.

    clients --> a port on loopback --> sessions of the server, the one that was used last first

In transaction mode, a session returns to the pool when the server reports that no transaction is open, otherwise when
its client disconnects. Clients need no password, and get an invented process id.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from pathlib import Path

__all__ = ["Pooler"]

_PLAIN = {80877103, 80877104}  # requests for encryption
_TERMINATE, _READY, _QUERY, _SYNC = b"X", b"Z", b"Q", b"S"
_CHUNK = 65536


class Pooler:
    """`close` ends every connection."""

    def __init__(self, upstream: Path, *, transactions: bool) -> None:
        self._upstream = str(upstream)
        self._transactions = transactions
        self._idle: list[_Session] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def dsn(self, dsn: str, upstream: Path) -> str:
        """The DSN of the database through the pooler."""
        return dsn.replace(f"host={upstream} port=5432", f"host=127.0.0.1 port={self.port}")

    def close(self) -> None:
        _end(self._listener)
        self._listener.close()
        with self._lock:
            sockets = [*self._sockets, *(session.socket for session in self._idle)]
        for one in sockets:
            _end(one)
        for thread in self._threads:
            thread.join(30.0)
            assert not thread.is_alive()
        for session in self._idle:
            session.socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    self._sockets.add(client)
                self._start(lambda c=client: self._serve(c))

    def _serve(self, client: socket.socket) -> None:
        session: _Session | None = None
        try:
            startup = _startup(client)
            session = self._take(startup)
            client.sendall(session.greeting)
            if self._transactions:
                self._give_back(session)
                session = None
            while True:
                header = _exactly(client, 5)
                body = _exactly(client, struct.unpack("!I", header[1:])[0] - 4)
                if header[:1] == _TERMINATE:
                    break
                if session is None:
                    session = self._take(startup)
                session.forward(client, header, body)
                if self._transactions and session.idle:
                    self._give_back(session)
                    session = None
        except (OSError, EOFError):
            pass
        finally:
            if session is not None:
                session.socket.close()
            with self._lock:
                self._sockets.discard(client)
            client.close()

    def _take(self, startup: bytes) -> _Session:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Session(self._upstream, startup)

    def _give_back(self, session: _Session) -> None:
        with self._lock:
            self._idle.append(session)

    def _start(self, run: object) -> None:
        thread = threading.Thread(target=run, daemon=True, name="postgres-pooler")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


class _Session:
    """A session of the server. `idle`: every answer has arrived, and no transaction is open."""

    def __init__(self, upstream: str, startup: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(upstream)
        self.socket.sendall(startup)
        self.idle = True
        self.greeting = b""
        self._asked = 0
        while True:
            kind, message = self._message()
            # The cancellation key, with a process id that is not one of the server's.
            self.greeting += b"K" + struct.pack("!III", 12, 1, 1) if kind == b"K" else message
            if kind == _READY:
                return

    def forward(self, client: socket.socket, header: bytes, body: bytes) -> None:
        """Forward a client's message, and the server's messages until it waits for the client."""
        self.socket.sendall(header + body)
        self.idle = False
        self._asked += header[:1] in {_QUERY, _SYNC}
        while self._asked or select.select([self.socket], [], [], 0)[0]:
            ready = select.select([self.socket, client], [], [])[0]
            if self.socket not in ready:
                return  # the client sends more: rows of a copy
            kind, message = self._message()
            client.sendall(message)
            if kind == _READY:
                self._asked -= 1
                self.idle = not self._asked and message[-1:] == b"I"

    def _message(self) -> tuple[bytes, bytes]:
        header = _exactly(self.socket, 5)
        return header[:1], header + _exactly(self.socket, struct.unpack("!I", header[1:])[0] - 4)


def _startup(client: socket.socket) -> bytes:
    while True:
        length = _exactly(client, 4)
        body = _exactly(client, struct.unpack("!I", length)[0] - 4)
        if struct.unpack("!I", body[:4])[0] not in _PLAIN:
            return length + body
        client.sendall(b"N")


def _exactly(one: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = one.recv(min(count - len(found), _CHUNK))
        if not more:
            raise EOFError
        found += more
    return found


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
