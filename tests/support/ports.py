"""Ports for tests: `closed_port` refuses connections, and `free_port` is for a process that will listen on it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.broker.ports import HOST, choose_ports

__all__ = ["closed_port", "free_port"]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections. It stays bound, so that no other process listens on it meanwhile."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield int(held.getsockname()[1])


def free_port() -> int:
    """A port that the kernel gives to no other socket before the process listens on it."""
    return choose_ports(1)[0]
