"""The proxy of network drills, between clients of this process and a real Kafka."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import KafkaSettings
from pipeline.drills import network_faults
from pipeline.drills.network_faults import NetworkFault, ProxyPlace
from pipeline.drills.proxy import NetworkProxy, connections_of, serve
from pipeline.kafka.cluster import KafkaCluster
from tests.conftest import KafkaUnderTest
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def proxy(kafka: KafkaUnderTest) -> Iterator[NetworkProxy]:
    """On a free port."""
    with closing(NetworkProxy(kafka.bootstrap_servers, 0)) as found:
        yield found


def _fault(kind: str, delay_ms: int = 0) -> NetworkFault:
    return NetworkFault(kind, [os.getpid()], int((time.time() + 60.0) * 1000), delay_ms)  # type: ignore[arg-type]


def test_clients_reach_every_broker_only_through_the_proxy(
    kafka: KafkaUnderTest, proxy: NetworkProxy
) -> None:
    """A connection past the proxy would be neither slow nor cut."""
    with closing(KafkaCluster(KafkaSettings(proxy.servers))) as cluster:
        assert cluster.cluster_id()
        assert cluster.brokers() == len(proxy.ports)
        to = {each.remote_port for each in connections_of(os.getpid())}
        assert to & set(proxy.ports)


def test_a_cut_closes_connections_and_refuses_new_ones_until_its_end(proxy: NetworkProxy) -> None:
    """The worker must see what a broken network looks like, and nothing of it afterwards."""
    host, _, port = proxy.servers.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), 60.0) as before:
        wait_until(lambda: connections_of(os.getpid()), lambda: "the connection")
        proxy.apply(_fault("cut"))
        assert before.recv(1) == b""
    with socket.create_connection((host, int(port)), 60.0) as during:
        assert during.recv(1) == b""
    assert proxy.affected == 2
    proxy.apply(None)
    with closing(KafkaCluster(KafkaSettings(proxy.servers))) as cluster:
        assert cluster.cluster_id()


def test_a_slow_network_delays_only_the_processes_of_the_fault(proxy: NetworkProxy) -> None:
    """Other workers behind the same proxy are not part of the drill."""
    with closing(KafkaCluster(KafkaSettings(proxy.servers))) as cluster:
        cluster.topics()
        proxy.apply(NetworkFault("slow", [1], int((time.time() + 60) * 1000), 60_000))
        cluster.topics()
        assert proxy.affected == 0
        proxy.apply(_fault("slow", delay_ms=300))
        began_s = time.monotonic()
        cluster.topics()
        assert time.monotonic() - began_s >= 0.6  # the request and the answer
        assert proxy.affected >= 2


def test_a_fault_ends_at_its_deadline_by_itself(
    proxy: NetworkProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driller may be killed, and its host may be the one that is cut off."""
    place, stop = ProxyPlace.of_port(tmp_path, 1), threading.Event()
    serving = threading.Thread(target=serve, args=(proxy, place, "kafka:9092", stop))
    serving.start()
    try:
        wait_until(lambda: place.note() is not None, lambda: "the note")
        place.begin(_fault("cut"))
        wait_until(lambda: (found := place.note()) is not None and found.fault == "cut", lambda: "the fault")
        deadline_s = time.time() + 60.0
        monkeypatch.setattr(network_faults, "time", SimpleNamespace(time=lambda: deadline_s))
        wait_until(lambda: (found := place.note()) is not None and not found.fault, lambda: "its end")
        assert place.fault_file.exists()
        assert [note.servers for _, note in ProxyPlace.running(tmp_path)] == [proxy.servers]
    finally:
        stop.set()
        serving.join()
