"""Ports for tests: `closed_port` refuses connections, and `free_port` is for a process that will listen on it.

A port is free until its process listens on it, which takes seconds, and again while the process is restarted. So
`choose_ports`, in a process of pytest, takes each port once, and none that another process of the same run takes
(`take_turns`).
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.broker import ports
from pipeline.broker.ports import HOST, choose_ports

__all__ = ["closed_port", "free_port", "share_of", "take_turns"]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections. It stays bound, so that no other process listens on it meanwhile."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield int(held.getsockname()[1])


def free_port() -> int:
    """A port that no other socket gets before the process listens on it."""
    return choose_ports(1)[0]


def take_turns() -> None:
    """Let this process choose ports in this way, from now on."""
    left: list[int] = []

    def tried(candidates: range) -> Iterator[int]:
        for _ in candidates:
            if not left:
                name, count = os.environ.get("PYTEST_XDIST_WORKER", ""), "PYTEST_XDIST_WORKER_COUNT"
                left.extend(share_of(candidates, int(name[2:] or "0"), int(os.environ.get(count, "1"))))
                random.SystemRandom().shuffle(left)
            yield left.pop()

    ports._tried = tried


def share_of(candidates: range, number: int, count: int) -> range:
    """The part of the process `number` of `count`: ports in a row, which no other part has."""
    return candidates[len(candidates) * number // count : len(candidates) * (number + 1) // count]
