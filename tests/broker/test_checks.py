"""What is refused before a broker starts, and how it is said."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pipeline.broker import checks
from pipeline.broker.ports import HOST, choose_ports, is_free, listener_of
from pipeline.broker.processes import kill, mark, spawn
from pipeline.broker.reporting import BrokerError
from pipeline.broker.state import BrokerState, NodeState

_LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""


def test_port_of_another_program_is_refused_with_its_name() -> None:
    """And with a port that is free, to be copied from the hint."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            BrokerError, match=rf"port {port} is taken by `.*python.*` \(process \d+\)"
        ) as caught:
            checks.require_free_ports([NodeState(1, port, choose_ports(1)[0])])
    suggested = int((caught.value.hint or "").rpartition(" ")[2])
    assert is_free(suggested)


def test_port_of_our_own_broker_is_refused_with_its_directory(tmp_path: Path) -> None:
    """The user has forgotten a broker: the hint is the command that stops it."""
    node_dir = tmp_path / "other" / "node-1"
    node_dir.mkdir(parents=True)
    port = choose_ports(1)[0]
    pid = spawn([sys.executable, "-c", _LISTEN, str(port), mark(node_dir)], node_dir / "log")
    try:
        while listener_of(port) is None:  # bounded by the time-out of the test
            assert not (node_dir / "log").read_text()
        with pytest.raises(BrokerError, match=f"taken by the local broker in {node_dir.parent}") as caught:
            checks.require_free_ports([NodeState(1, port, choose_ports(1)[0])])
    finally:
        kill({pid: node_dir})
    assert caught.value.hint == f"pipeline broker stop --data-dir {node_dir.parent}"


def test_too_little_memory_is_refused_with_the_numbers() -> None:
    """Better than a machine that swaps, or a process that the kernel kills."""
    with pytest.raises(BrokerError, match=r"need \d+ MB of memory; \d+ MB are available"):
        checks.require_memory(starting=1_000_000, nodes=1)
    checks.require_memory(starting=1, nodes=1)


def test_full_disk_is_refused() -> None:
    """/proc is a file system with no space at all."""
    with pytest.raises(BrokerError, match="0 MB are free on the disk of /proc"):
        checks.require_disk(Path("/proc"))


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A broker's files never mix with a user's."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BrokerError, match=r"holds 'notes.txt' and no broker\.json"):
        checks.require_empty(tmp_path)


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b"])
def test_path_that_java_or_kafka_would_split_is_refused(name: str) -> None:
    """Kafka would put its records somewhere else, without a word."""
    with pytest.raises(BrokerError, match="cannot use the directory"):
        checks.require_usable_path(Path("/x") / name)


def test_records_of_a_newer_kafka_are_refused_by_name(tmp_path: Path) -> None:
    """Kafka itself would end with a stack trace about a metadata version."""
    state = BrokerState.new("4.10.0", "c", (NodeState(1, 9092, 9093),))
    with pytest.raises(BrokerError, match=r"formatted by Kafka 4\.10\.0.*4\.9\.2, cannot read") as caught:
        checks.require_readable(tmp_path, state, "4.9.2")
    assert "--fresh" in (caught.value.hint or "")
    for served_by in ("4.10.0", "4.10.1", "4.11.0", "5.0.0"):
        checks.require_readable(tmp_path, state, served_by)


def test_other_number_of_nodes_is_refused(tmp_path: Path) -> None:
    """The voters of a cluster are part of its storage."""
    state = BrokerState.new("4.3.1", "c", (NodeState(1, 9092, 9093),))
    with pytest.raises(BrokerError, match=r"formatted with 1 node\(s\), not 3") as caught:
        checks.require_same_nodes(tmp_path, state, 3)
    assert "--nodes 1" in (caught.value.hint or "")
