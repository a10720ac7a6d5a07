"""The listener of a process: it greets each connection and keeps it open. Used by one thread only.

It reads nothing. A peer that sends anything is disconnected, so no request can have an effect. The connections are
bounded. Their end is seen by keepalive packets if the peer's host vanishes.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress

from pipeline.peers.address import PeerPlace

__all__ = ["Listener", "keep_alive"]

MAX_CONNECTIONS = 16
_BACKLOG = 128
_ACCEPT_PAUSE_S = 1.0
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
# For these reasons, one connection could not be accepted. For others, such as a lack of descriptors, none can.
_OF_ONE = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR})


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel probe an idle connection, also so that no device on the way forgets it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Listener:
    """One listening socket and its connections. Raises OSError if it cannot listen."""

    def __init__(self, place: PeerPlace, greeting: bytes, selector: selectors.BaseSelector) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            # The connections of a process that was killed must not keep its next one from the same port.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind(address)
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._greeting = greeting
        self._selector = selector
        self._connections: set[socket.socket] = set()
        self._paused_until_s: float | None = None
        self.port = int(self._socket.getsockname()[1])

    @property
    def connections(self) -> int:
        """The number of open connections. Any thread may read it."""
        return len(self._connections)

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets, for a forked child that closes its copies."""
        return [self._socket, *self._connections]

    @property
    def due_s(self) -> float | None:
        """When `turn` must be called next; None: when a socket is ready."""
        return self._paused_until_s

    def begin(self) -> None:
        """Accept connections from now on."""
        self._selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def turn(self, now_s: float) -> None:
        """Accept again after a pause."""
        if self._paused_until_s is not None and now_s >= self._paused_until_s:
            self._paused_until_s = None
            self.begin()

    def close(self) -> None:
        """Close all connections, then the socket."""
        for connection in list(self._connections):
            self._drop(connection)
        self._socket.close()

    def _accept(self, now_s: float) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OF_ONE:
                    continue
                # The socket stays ready, so without a pause this would be repeated at once.
                self._selector.unregister(self._socket)
                self._paused_until_s = now_s + _ACCEPT_PAUSE_S
                return
            self._greet(connection)

    def _greet(self, connection: socket.socket) -> None:
        try:
            if len(self._connections) >= MAX_CONNECTIONS:
                raise OSError(errno.EMFILE, "too many connections")
            connection.setblocking(False)
            keep_alive(connection)
            connection.send(self._greeting)
        except OSError:
            connection.close()
            return
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, self._ended(connection))

    def _ended(self, connection: socket.socket) -> Callable[[float], None]:
        return lambda _now_s: self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._connections.discard(connection)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()
