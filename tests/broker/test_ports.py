"""Ports: chosen where the kernel does not interfere, and never taken in silence."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pipeline.broker.ports import HOST, choose_ports, is_free, listener_of
from tests.support.ports import share_of


def test_chosen_ports_are_free_and_outside_the_kernels_own_range() -> None:
    """A client that retries a dead local broker inside that range can be connected to itself."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = choose_ports(6)

    assert len(set(ports)) == 6
    assert all(is_free(port) for port in ports)
    assert all(port < max(low, 32_768) for port in ports)


def test_avoided_ports_are_not_chosen() -> None:
    """Client and controller ports are chosen one after the other."""
    ports = choose_ports(3)
    assert not set(choose_ports(3, avoid=ports)) & set(ports)


def test_a_test_process_chooses_no_port_again() -> None:
    """A broker of a test keeps its port while it is stopped, and so does a worker that is about to start."""
    chosen = [choose_ports(1)[0] for _ in range(300)]
    assert len(set(chosen)) == len(chosen)


def test_test_processes_of_one_run_choose_different_ports() -> None:
    """They start brokers at the same time."""
    shares = [share_of(range(15_000, 32_768), number, 3) for number in range(3)]
    assert sorted(port for share in shares for port in share) == list(range(15_000, 32_768))
    assert min(map(len, shares)) > 5_000


def test_who_listens_is_found() -> None:
    """`port 9092 is taken` helps only with the name of who has it."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        found = listener_of(port)
        assert not is_free(port)
        assert found is not None
        assert found.pid == os.getpid()
    assert listener_of(port) is None


def test_a_file_closed_while_looking_hides_no_listener() -> None:
    """Listing one's own open files opens one more, which is closed before its turn comes."""
    below = socket.socket()
    with socket.create_server((HOST, 0)) as server:
        below.close()  # the listing takes this lower number, and stands before the server's
        found = listener_of(server.getsockname()[1])
        assert found is not None
        assert found.pid == os.getpid()
