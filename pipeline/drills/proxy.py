"""A proxy between workers and their Kafka, for network drills: `NetworkProxy`.

    worker --> listener for a broker --> one connection to that broker for each of the worker's
                   |
                   the fault of a drill: a delay, or no connection, for the workers that it names

Clients that start at `servers` reach brokers only through the proxy, because it replaces the addresses in answers that
contain brokers (`pipeline/broker/wire.py`). It listens on 127.0.0.1 only. It understands Kafka without TLS.

A connection belongs to the process that opened it, which Linux tells by its port. A fault names processes. A cut closes
connections: a request may have reached its broker, and its answer is lost, as in a real network.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.broker.wire import Address, Request, read_frame, readdressed, send_frame
from pipeline.drills.network_faults import NetworkFault, ProxyNote, ProxyPlace
from pipeline.drills.workers import Process
from pipeline.errors import ConfigError

__all__ = ["Connection", "NetworkProxy", "connections_of", "serve"]

_HOST = "127.0.0.1"
_CONNECT_S = 5.0
_LOOK_S = 0.1

_ESTABLISHED = "01"


class Connection(NamedTuple):
    """An established connection: the port of the process, and the port that it is connected to."""

    local_port: int
    remote_port: int


def connections_of(pid: int) -> list[Connection]:
    """The established TCP connections of a process; none if it has ended or belongs to another user."""
    inodes = set(_inodes(pid))
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and fields[9] in inodes:
                    found.append(Connection(_port(fields[1]), _port(fields[2])))
    return found


def _inodes(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


@dataclass(slots=True)
class _Pipe:
    """A client's connection and the one to the broker. `requests`: those without an answer, by correlation id."""

    client: socket.socket
    broker: socket.socket
    requests: dict[int, Request] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The client's port."""
        return int(self.client.getpeername()[1])


class NetworkProxy:
    """Listens for the brokers of one cluster. `apply` a fault or None at any time; `close` ends it.

    Args:
        bootstrap_servers: The brokers, as HOST:PORT,...
        port: The port for the first of them; other brokers get free ports.

    Raises:
        ConfigError: The port is in use.
    """

    def __init__(self, bootstrap_servers: str, port: int) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[Address, socket.socket] = {}
        self._pipes: list[_Pipe] = []
        self._fault: NetworkFault | None = None
        self._ended = threading.Event()  # that fault is over
        self._struck: set[int] = set()  # the client ports of the connections that the fault is about
        self._closed = False
        self.affected = 0
        addresses = [server.strip().rpartition(":") for server in bootstrap_servers.split(",")]
        entries = []
        for number, (host, _, broker_port) in enumerate(addresses):
            entries.append(self._address_of((host, int(broker_port)), port if number == 0 else 0))
        self.servers = ",".join(f"{host}:{port}" for host, port in entries)

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on."""
        with self._lock:
            return [int(listener.getsockname()[1]) for listener in self._listeners.values()]

    def apply(self, fault: NetworkFault | None) -> None:
        """Apply a fault from now on; None ends it."""
        with self._lock:
            if fault != self._fault:
                self._ended.set()
                self._ended = threading.Event()
                if fault is not None:
                    self.affected = 0
            self._fault = fault
            self._struck = set()
            pipes = list(self._pipes)
        if fault is not None:
            self._struck |= self._ports_of(fault)
        if fault is not None and fault.kind == "cut":
            for pipe in pipes:
                with suppress(OSError):
                    if pipe.port in self._struck:
                        self._note()
                        _end(pipe)

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            self._ended.set()
            listeners, pipes = list(self._listeners.values()), list(self._pipes)
        for listener in listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for pipe in pipes:
            _end(pipe)

    def _address_of(self, broker: Address, port: int = 0) -> Address:
        """The address at which the proxy listens for a broker."""
        with self._lock:
            listener = self._listeners.get(broker)
            if listener is None and not self._closed:
                try:
                    listener = socket.create_server((_HOST, port))
                except OSError as error:
                    raise ConfigError(
                        f"the proxy cannot listen on {_HOST}:{port}: {error.strerror}",
                        hint="choose another --port",
                    ) from error
                self._listeners[broker] = listener
                _start(lambda: self._accept(listener, broker))
        return broker if listener is None else (_HOST, int(listener.getsockname()[1]))

    def _accept(self, listener: socket.socket, broker: Address) -> None:
        while True:
            try:
                client, (_, port) = listener.accept()
            except OSError:
                return
            fault = self._fault
            if fault is not None and port in self._ports_of(fault):
                self._struck.add(port)
                if fault.kind == "cut":
                    self._note()
                    client.close()
                    continue
            try:
                upstream = socket.create_connection(broker, _CONNECT_S)
            except OSError:  # the broker is unreachable
                client.close()
                continue
            upstream.settimeout(None)
            pipe = _Pipe(client, upstream)
            with self._lock:
                self._pipes.append(pipe)
                begun = self._fault if self._fault is not fault else None
            # `apply` did not see this connection if a cut began while it was opened.
            if begun is not None and begun.kind == "cut" and port in self._ports_of(begun):
                self._note()
                _end(pipe)
            _start(lambda pipe=pipe: self._forward(pipe, self._requests))  # type: ignore[misc]
            _start(lambda pipe=pipe: self._forward(pipe, self._answers))  # type: ignore[misc]

    def _forward(self, pipe: _Pipe, direction: Callable[[_Pipe, int], None]) -> None:
        """One direction, until either side closes. The last of the two closes the sockets."""
        try:
            with suppress(OSError):
                direction(pipe, pipe.port)
        finally:
            _end(pipe)
            with self._lock:
                last = pipe not in self._pipes
                if not last:
                    self._pipes.remove(pipe)
            if last:
                pipe.client.close()
                pipe.broker.close()

    def _requests(self, pipe: _Pipe, port: int) -> None:
        while (frame := read_frame(pipe.client)) is not None:
            self._delay(port)
            request = Request.of(frame)
            pipe.requests[request.correlation] = request
            send_frame(pipe.broker, frame)

    def _answers(self, pipe: _Pipe, port: int) -> None:
        while (frame := read_frame(pipe.broker)) is not None:
            self._delay(port)
            request = pipe.requests.pop(int.from_bytes(frame[:4], "big", signed=True), None)
            send_frame(pipe.client, readdressed(request, frame, self._address_of) if request else frame)

    def _delay(self, port: int) -> None:
        """Wait, if a fault delays the connection of this port. The end of the fault ends the wait."""
        with self._lock:
            fault, ended = self._fault, self._ended
        if fault is None or fault.kind != "slow" or port not in self._struck:
            return
        self._note()
        ended.wait(fault.delay_ms / 1000)

    def _note(self) -> None:
        with self._lock:
            self.affected += 1

    def _ports_of(self, fault: NetworkFault) -> set[int]:
        """The client ports of the connections that the fault's processes have to this proxy now."""
        own = set(self.ports)
        found = (each for pid in fault.pids for each in connections_of(pid))
        return {each.local_port for each in found if each.remote_port in own}


def serve(proxy: NetworkProxy, place: ProxyPlace, kafka: str, stop: threading.Event) -> None:
    """Apply the faults that drills write to `place`, until `stop` is set. Each ends at its deadline at the latest."""
    me, applied = Process.of(os.getpid()), None
    written: ProxyNote | None = None
    while True:
        fault = place.fault()
        if fault != applied:
            proxy.apply(fault)
            applied = fault
        note = ProxyNote(me, proxy.servers, kafka, proxy.ports, fault.kind if fault else "", proxy.affected)
        if note != written:
            place.write_note(note)
            written = note
        if stop.wait(_LOOK_S):
            return


def _end(pipe: _Pipe) -> None:
    """Shut both connections down, without closing descriptors that another thread may use."""
    for one in (pipe.client, pipe.broker):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _start(run: Callable[[], None]) -> None:
    threading.Thread(target=run, daemon=True, name="proxy").start()
