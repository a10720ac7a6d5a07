"""`HttpServer`: an HTTP server on its own threads, whose use of threads, connections and memory is bounded.

One thread accepts connections and reads requests; it hands complete requests to a few other threads. So a client that
sends or reads slowly holds a connection but no thread. Only this module imports the server's library, waitress.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from waitress import wasyncore
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

__all__ = ["MAX_ANSWER_BYTES", "MAX_BODY_BYTES", "MAX_CONNECTIONS", "THREADS", "HttpServer", "Wsgi"]

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

THREADS = 6
MAX_CONNECTIONS = 64  # further clients wait in the queue of the listening socket
QUEUED_CONNECTIONS = 64
IDLE_S = 15  # a connection without a byte for so long is closed
CONNECTION_S = 60.0  # and each one after this time, unless a request is being answered
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024  # no path of ours takes a body
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of a connection, in memory: a root file system may be read-only
TURN_S = 1.0


class HttpServer:
    """Serves an application from `start` to `stop`.

    Args:
        application: Called on the server's threads.
        host: The address to listen on.
        port: The port. 0: any free one.
        threads: That answer requests.
        max_body_bytes: Of a request.
    """

    def __init__(
        self,
        application: Wsgi,
        host: str,
        port: int,
        threads: int = THREADS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._application = application
        self._host = host
        self._port = port
        self._threads = threads
        self._max_body_bytes = max_body_bytes
        self._server: _Server | None = None
        self._dispatcher = ThreadedTaskDispatcher()
        self._connections: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="pipeline-http")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    def start(self) -> None:
        """Listen, and answer requests. Raises OSError if the address cannot be used."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=QUEUED_CONNECTIONS)
        self._port = listener.getsockname()[1]
        logging.getLogger("waitress").setLevel(logging.ERROR)  # it reports each busy moment
        self._dispatcher.set_thread_count(self._threads)
        self._server = _Server(
            self._application,
            map=self._connections,
            _sock=listener,
            dispatcher=self._dispatcher,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
            sockets=[listener],
            backlog=QUEUED_CONNECTIONS,
            connection_limit=MAX_CONNECTIONS + 2,  # the listening socket and a pipe count
            channel_timeout=IDLE_S,
            cleanup_interval=1,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=self._max_body_bytes,
            outbuf_overflow=MAX_ANSWER_BYTES,
            outbuf_high_watermark=MAX_ANSWER_BYTES,
            log_socket_errors=False,
            ident=None,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close all connections. Requests that are being answered get no answer."""
        if self._server is None:
            return
        # The loop sets it itself. Otherwise it could close the pipe that wakes it before this thread writes to it.
        # It may also be awake for another reason, and close the pipe first.
        with suppress(OSError):
            self._server.trigger.pull_trigger(self._stopping.set)
        self._thread.join()
        self._server = None

    def _serve(self) -> None:
        # `poll` and not `select`, which cannot use descriptors above 1,023. A worker with many tasks has more.
        while not self._stopping.is_set():
            wasyncore.loop(timeout=TURN_S, use_poll=True, map=self._connections, count=1)
        wasyncore.close_all(self._connections, ignore_all=True)
        self._dispatcher.shutdown(timeout=0)


class _Server(TcpWSGIServer):  # type: ignore[misc]  # the library has no types
    """Also closes old connections. Otherwise a client that sends a byte from time to time would keep its connection."""

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if not channel.requests and now - channel.creation_time > CONNECTION_S:
                channel.will_close = True
