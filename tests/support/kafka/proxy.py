"""A proxy between Kafka clients and their brokers, which delays requests and loses answers on demand.

    client --> listener of the broker --> one connection to the broker for each of the client's
                    |
                    faults: the nth request of a kind is held, or its answer is lost

Guarantees: clients that start at `servers` reach brokers only through the proxy, because it replaces the addresses in
answers that contain brokers. A held request reaches the broker after its release, over its own connection, even if the
client has gone: it is like a delayed packet. Later requests on the same connection wait, as on a real network.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.broker.wire import Address, Request, read_frame, readdressed, send_frame
from tests.support.kafka.wire import Api, error_code, matches

__all__ = ["Api", "Exchange", "Fault", "Proxy"]

_HOST = "127.0.0.1"
_DEADLINE_S = 60.0
_CONNECT_S = 5.0
_RECORDED = frozenset(Api)


@dataclass(slots=True)
class Exchange:
    """A request and, once there is one, the broker's answer to it."""

    request: Request
    answer: bytes | None = None

    @property
    def error(self) -> int:
        """The broker's error code; 0 is success."""
        assert self.answer is not None, f"{self.request.api} was not answered"
        return error_code(self.request, self.answer)


class Fault:
    """A single fault of the nth request of a kind. Created by the proxy's methods."""

    def __init__(
        self, proxy: Proxy, api: Api, containing: tuple[bytes, ...], nth: int, *, hold: bool, cut: bool
    ) -> None:
        self._proxy = proxy
        self._api = api
        self._containing = containing
        self._left = nth
        self.hold = hold
        self.cut = cut
        self.released = threading.Event()
        self.exchange: Exchange | None = None

    @property
    def fired(self) -> bool:
        """Whether the request has arrived."""
        return self.exchange is not None

    def release(self) -> None:
        """Forward the held request to its broker."""
        self.released.set()

    def wait_until_fired(self) -> None:
        """Wait for the request."""
        self._proxy.wait_until(lambda: self.fired, f"{self._api.name} to come")

    def answer(self) -> int:
        """Wait for the broker's answer. Returns its error code."""
        self._proxy.wait_until(
            lambda: self.exchange is not None and self.exchange.answer is not None,
            f"{self._api.name} to be answered",
        )
        assert self.exchange is not None
        return self.exchange.error

    def takes(self, exchange: Exchange) -> bool:
        """Whether the fault applies to this request. Called under the proxy's lock."""
        request = exchange.request
        if self.fired or not matches(request, self._api, self._containing):
            return False
        self._left -= 1
        if self._left == 0:
            self.exchange = exchange
        return self.fired


class Proxy:
    """Listens on loopback for the brokers of one cluster. `close` ends every connection and thread."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.exchanges: list[Exchange] = []
        self._changed = threading.Condition()
        self._faults: list[Fault] = []
        self._listeners: dict[Address, socket.socket] = {}
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        addresses = [server.rpartition(":") for server in bootstrap_servers.split(",")]
        entries = [self._address_of((host, int(port))) for host, _, port in addresses]
        self.servers = ",".join(f"{host}:{port}" for host, port in entries)

    def hold(self, api: Api, *containing: bytes, nth: int = 1, cut: bool = False) -> Fault:
        """Hold the nth such request from now on until its release. `cut`: close the client's connection."""
        return self._register(Fault(self, api, containing, nth, hold=True, cut=cut))

    def lose_answer(self, api: Api, *containing: bytes, nth: int = 1) -> Fault:
        """Forward the nth such request from now on, and close the connection instead of sending the answer."""
        return self._register(Fault(self, api, containing, nth, hold=False, cut=False))

    def answered(self, api: Api, *containing: bytes) -> list[Exchange]:
        """The complete exchanges of this kind, in the order of their requests."""
        with self._changed:
            return [
                exchange
                for exchange in self.exchanges
                if exchange.answer is not None and matches(exchange.request, api, containing)
            ]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition that requests and answers can change."""
        deadline = time.monotonic() + _DEADLINE_S
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f"waited {_DEADLINE_S:.0f} s for {what}"
                self._changed.wait(left)

    def close(self) -> None:
        """End all connections and threads. Drops requests that are still held."""
        with self._changed:
            self._closed = True
            faults, sockets, threads = (
                self._faults,
                [*self._listeners.values(), *self._sockets],
                self._threads,
            )
        for one in sockets:
            _end(one)
        for fault in faults:
            fault.release()
        for thread in threads:
            thread.join(_DEADLINE_S)
            assert not thread.is_alive(), f"{thread.name} does not end"

    def _register(self, fault: Fault) -> Fault:
        with self._changed:
            self._faults.append(fault)
        return fault

    def _address_of(self, broker: Address) -> Address:
        """The address at which the proxy listens for a broker."""
        with self._changed:
            if self._closed:
                return broker
            if broker not in self._listeners:
                listener = socket.create_server((_HOST, 0))
                self._listeners[broker] = listener
                self._start(lambda: self._accept(listener, broker), "accept")
            port = self._listeners[broker].getsockname()[1]
        return _HOST, port

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, daemon=True, name=f"proxy-{name}")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, broker: Address) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    upstream = socket.create_connection(broker, _CONNECT_S)
                except OSError:  # an unreachable broker
                    client.close()
                    continue
                upstream.settimeout(None)
                self._open(client, upstream)

    def _open(self, client: socket.socket, upstream: socket.socket) -> None:
        with self._changed:
            if self._closed:
                client.close()
                upstream.close()
                return
            self._sockets |= {client, upstream}
            pipe = _Pipe(client, upstream)
            self._start(lambda: self._requests(pipe), "requests")
            self._start(lambda: self._answers(pipe), "answers")

    def _requests(self, pipe: _Pipe) -> None:
        """Forward requests until client or broker has closed and no held request waits for its answer."""
        with contextlib.suppress(OSError):
            while (frame := read_frame(pipe.client)) is not None:
                exchange = Exchange(Request.of(frame))
                fault = self._came(exchange)
                if fault is not None and fault.hold:
                    if fault.cut:
                        _end(pipe.client)
                    fault.released.wait()
                with self._changed:
                    pipe.waiting[exchange.request.correlation] = exchange, fault
                send_frame(pipe.upstream, frame)
        with self._changed:
            while any(fault for _, fault in pipe.waiting.values()) and not pipe.broker_gone:
                self._changed.wait()
        _end(pipe.upstream)
        pipe.client_done.set()

    def _answers(self, pipe: _Pipe) -> None:
        """Forward answers to the client."""
        with contextlib.suppress(OSError):
            while (frame := read_frame(pipe.upstream)) is not None:
                with self._changed:
                    exchange, fault = pipe.waiting.pop(int.from_bytes(frame[:4], signed=True))
                    if exchange.request.api in _RECORDED:
                        exchange.answer = frame
                    self._changed.notify_all()
                if fault is not None and not fault.hold:
                    break
                with contextlib.suppress(OSError):  # the client of a late answer has gone
                    send_frame(pipe.client, readdressed(exchange.request, frame, self._address_of))
        _end(pipe.client)
        _end(pipe.upstream)
        with self._changed:
            pipe.broker_gone = True
            self._changed.notify_all()
        pipe.client_done.wait()
        with self._changed:
            self._sockets -= {pipe.client, pipe.upstream}
        pipe.client.close()
        pipe.upstream.close()

    def _came(self, exchange: Exchange) -> Fault | None:
        with self._changed:
            if exchange.request.api in _RECORDED:
                self.exchanges.append(exchange)
            fault = next((fault for fault in self._faults if fault.takes(exchange)), None)
            self._changed.notify_all()
        return fault


class _Pipe:
    """One client's connection and the connection to the broker. Only the answer thread closes them."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client = client
        self.upstream = upstream
        self.waiting: dict[int, tuple[Exchange, Fault | None]] = {}
        self.broker_gone = False
        self.client_done = threading.Event()


def _end(connection: socket.socket) -> None:
    """Shut a connection down without closing its descriptor, which another thread may use."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
