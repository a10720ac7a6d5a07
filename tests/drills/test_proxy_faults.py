"""What the proxy of network drills does to connections, between this process and a broker that only answers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.wire import read_frame
from pipeline.drills.network_faults import NetworkFault, ProxyNote, ProxyPlace
from pipeline.drills.proxy import NetworkProxy
from pipeline.drills.workers import Process
from pipeline.errors import ConfigError
from tests.support.drills.echoing import EchoBroker, connect, request
from tests.support.waiting import wait_until

_OTHER = 1  # a process that has no connection to the proxy
_LONG_MS = 60_000


@pytest.fixture
def broker() -> Iterator[EchoBroker]:
    with closing(EchoBroker()) as found:
        yield found


@pytest.fixture
def proxy(broker: EchoBroker) -> Iterator[NetworkProxy]:
    """On a free port."""
    with closing(NetworkProxy(broker.servers, 0)) as found:
        yield found


def _fault(kind: str, *pids: int, delay_ms: int = 0, seconds: float = 60.0) -> NetworkFault:
    until_ms = int((time.time() + seconds) * 1000)
    return NetworkFault(kind, list(pids or (os.getpid(),)), until_ms, delay_ms)  # type: ignore[arg-type]


def _answered(servers: str) -> bool:
    """Whether a request over a new connection is answered."""
    with connect(servers) as connection:
        request(connection, 7)
        return read_frame(connection) == b"\0\0\0\7"


def test_a_fault_of_another_process_changes_nothing(proxy: NetworkProxy) -> None:
    """Other workers behind the same proxy are not part of the drill."""
    with connect(proxy.servers) as before:
        request(before, 1)
        assert read_frame(before) == b"\0\0\0\1"
        for fault in (_fault("slow", _OTHER, delay_ms=_LONG_MS), _fault("cut", _OTHER)):
            proxy.apply(fault)
            request(before, 2)
            assert read_frame(before) == b"\0\0\0\2"
            assert _answered(proxy.servers)
    assert proxy.affected == 0


@pytest.mark.parametrize("begun", ["before", "during"])
def test_a_slow_network_delays_requests_and_answers(
    proxy: NetworkProxy, broker: EchoBroker, begun: str
) -> None:
    """A worker opens connections during the fault, too. The end of the fault ends each delay."""
    slow = _fault("slow", delay_ms=_LONG_MS)
    if begun == "during":
        proxy.apply(slow)
    with connect(proxy.servers) as connection:
        if begun == "before":
            request(connection, 1)
            assert read_frame(connection) == b"\0\0\0\1"
            proxy.apply(slow)
        arrived = broker.requests
        request(connection, 2)
        wait_until(lambda: proxy.affected == 1, lambda: "the delay of the request")
        assert broker.requests == arrived
        proxy.apply(None)
        assert read_frame(connection) == b"\0\0\0\2"
        proxy.apply(_fault("slow", delay_ms=1))
        request(connection, 3)
        assert read_frame(connection) == b"\0\0\0\3"
        assert proxy.affected == 2  # of this fault: the request and the answer


def test_a_cut_closes_connections_until_its_end(proxy: NetworkProxy, broker: EchoBroker) -> None:
    """The worker must see what a broken network looks like, and nothing of it afterwards."""
    with connect(proxy.servers) as before:
        request(before, 1)
        assert read_frame(before) == b"\0\0\0\1"
        proxy.apply(_fault("cut"))
        assert before.recv(1) == b""
    with connect(proxy.servers) as during:
        assert during.recv(1) == b""
    assert (proxy.affected, broker.requests) == (2, 1)
    proxy.apply(None)
    assert _answered(proxy.servers)


def test_a_cut_that_begins_while_a_connection_is_opened_closes_it(
    proxy: NetworkProxy, broker: EchoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one connection of the worker would be open for the whole drill."""
    connecting = socket.create_connection

    def begin_first(address: tuple[str, int], *arguments: Any) -> socket.socket:
        if address[1] == broker.port:  # the proxy has accepted the connection, and opens its own
            proxy.apply(_fault("cut"))
        return connecting(address, *arguments)

    monkeypatch.setattr(socket, "create_connection", begin_first)
    with connect(proxy.servers) as connection:
        assert connection.recv(1) == b""
    assert proxy.affected == 1


def test_an_unreachable_broker_looks_like_one(proxy: NetworkProxy, broker: EchoBroker) -> None:
    """The proxy must not hold a connection that leads nowhere."""
    broker.close()
    with connect(proxy.servers) as connection:
        assert connection.recv(1) == b""


def test_a_port_that_is_in_use_is_an_error_with_a_next_step(proxy: NetworkProxy, broker: EchoBroker) -> None:
    """A second proxy on the port would get no connections."""
    with pytest.raises(ConfigError, match="the proxy cannot listen on") as caught:
        NetworkProxy(broker.servers, proxy.ports[0])
    assert caught.value.hint == "choose another --port"


def test_a_fault_after_its_deadline_is_not_applied(tmp_path: Path) -> None:
    """The driller may have been killed before it could delete the file."""
    place = ProxyPlace.of_port(tmp_path, 9392)
    place.write_note(ProxyNote(Process.of(os.getpid()), "127.0.0.1:9392", "kafka:9092", [9392]))
    fault = _fault("cut")
    place.begin(fault)
    assert place.fault() == fault
    place.begin(_fault("cut", seconds=-1.0))
    assert place.fault() is None
    place.fault_file.write_text("{")
    assert place.fault() is None
    assert place.end()
    assert not place.end()


def test_a_proxy_that_has_ended_is_not_one_that_runs(tmp_path: Path) -> None:
    """Its last note remains, and a drill would wait for a fault that nothing applies."""
    note = ProxyNote(Process.of(os.getpid()), "127.0.0.1:9392", "kafka:9092", [9392])
    ProxyPlace.of_port(tmp_path, 9392).write_note(note)
    ProxyPlace.of_port(tmp_path, 9393).write_note(
        ProxyNote(Process(os.getpid(), 1), "127.0.0.1:9393", "kafka:9092", [9393])
    )
    assert [found for _, found in ProxyPlace.running(tmp_path)] == [note]
