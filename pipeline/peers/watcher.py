"""The connection to one watched process: `WatchedPeer`. Used by one thread only.

It turns what happens to sockets into signals for `core.peer_watch`, and does what the state requires: keep the
connection, or connect again after a while. An error that only this process has, such as a lack of descriptors, is not a
signal.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Mapping
from contextlib import suppress

from pipeline.core.peer_watch import MAX_GREETING, PeerSignal, PeerState, PeerView, greeted_by
from pipeline.peers.listener import keep_alive
from pipeline.ports.peers import PeerTarget

__all__ = ["WatchedPeer"]

CONNECT_S = 0.5
_LOCAL_RETRY_S = 1.0
_SIGNALS: Mapping[int, PeerSignal] = {
    errno.ECONNREFUSED: PeerSignal.REFUSED,
    errno.EHOSTUNREACH: PeerSignal.UNREACHABLE,
    errno.ENETUNREACH: PeerSignal.UNREACHABLE,
    errno.EHOSTDOWN: PeerSignal.UNREACHABLE,
    errno.ETIMEDOUT: PeerSignal.UNREACHABLE,
}
# This process cannot connect to anything now.
_LOCAL = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN, errno.EINTR}
)


class WatchedPeer:
    """One target, its view, and at most one socket."""

    def __init__(self, target: PeerTarget, selector: selectors.BaseSelector, now_s: float) -> None:
        self.target = target
        self.view = PeerView()
        self.since_s = now_s
        self._selector = selector
        self._socket: socket.socket | None = None
        self._connecting = False
        self._received = b""
        self._due_s: float | None = now_s
        self.reported = False  # whether its end was reported

    @property
    def due_s(self) -> float | None:
        """When `turn` must be called next; None: when the socket is ready."""
        return self._due_s

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets, for a forked child that closes its copies."""
        return [self._socket] if self._socket is not None else []

    def turn(self, now_s: float) -> None:
        """Connect, or give up an attempt that takes too long. Call it only after all ready sockets were served."""
        if self._due_s is None or now_s < self._due_s or self.view.state is PeerState.DEAD:
            return
        if self._connecting:
            self._signal(PeerSignal.UNREACHABLE, now_s)
        elif self._socket is None:
            self._connect(now_s)

    def close(self) -> None:
        """End the connection."""
        self._due_s, self._connecting, self._received = None, False, b""
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(connection)
            connection.close()

    def _connect(self, now_s: float) -> None:
        try:
            found = socket.getaddrinfo(
                self.target.host, self.target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            family, kind, protocol, _, address = found[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
            keep_alive(self._socket)
        except OSError:
            self.close()
            self._due_s = now_s + _LOCAL_RETRY_S
            return
        code = self._socket.connect_ex(address)
        if code not in {0, errno.EINPROGRESS}:
            self._failed(code, now_s)
            return
        self._connecting, self._due_s = True, now_s + CONNECT_S
        self._selector.register(self._socket, selectors.EVENT_WRITE, self._connected)

    def _connected(self, now_s: float) -> None:
        if self._socket is None:
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code, now_s)
            return
        with suppress(OSError):
            if self._socket.getsockname() == self._socket.getpeername():
                # The kernel chose the port that was asked for as the source, which it does only if no process has it.
                self._signal(PeerSignal.REFUSED, now_s)
                return
        self._connecting, self._due_s = False, None
        self._selector.modify(self._socket, selectors.EVENT_READ, self._readable)

    def _readable(self, now_s: float) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(MAX_GREETING - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            self._signal(PeerSignal.RESET, now_s)
            return
        if not data:
            self._signal(PeerSignal.ENDED, now_s)
            return
        self._received += data
        try:
            process = greeted_by(self._received)
        except ValueError:
            self._signal(PeerSignal.FOREIGN, now_s)
            return
        if process == self.target.process:
            self.view = self.view.after(PeerSignal.GREETED, now_s)
        elif process is not None:
            self._signal(PeerSignal.GREETED_BY_OTHER, now_s)

    def _failed(self, code: int, now_s: float) -> None:
        if code in _LOCAL:
            self.close()
            self._due_s = now_s + _LOCAL_RETRY_S
        else:
            self._signal(_SIGNALS.get(code, PeerSignal.RESET), now_s)

    def _signal(self, signal: PeerSignal, now_s: float) -> None:
        """The connection or the attempt has ended by this signal."""
        self.close()
        self.view = self.view.after(signal, now_s)
        if self.view.state is not PeerState.DEAD:
            self._due_s = now_s + self.view.retry_s(now_s)
