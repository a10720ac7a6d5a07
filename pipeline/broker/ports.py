"""Ports of this machine: which are free, which to choose, and who has one that is taken."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.errors import BrokerError

__all__ = ["HOST", "Listener", "choose_ports", "is_free", "listener_of"]

HOST = "127.0.0.1"
_LOWEST = 15_000
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Listener:
    """The process behind a port."""

    pid: int
    command: tuple[str, ...]


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As Java does: connections of an earlier broker that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_ports(count: int, *, avoid: Collection[int] = ()) -> list[int]:
    """Free ports, below the range from which the kernel takes ports for outgoing connections.

    A port inside that range may go to any program between a broker's death and its restart; a client that
    keeps trying to connect to a dead local broker can even be given the broker's own port and meet itself.
    """
    chosen: list[int] = []
    candidates = range(_LOWEST, _ephemeral_start())
    # At random, so that brokers started at the same moment do not all try the same one.
    for port in random.SystemRandom().sample(candidates, k=min(1_000, len(candidates))):
        if len(chosen) == count:
            break
        if port not in avoid and is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise BrokerError(
            f"no {count} free ports between {_LOWEST} and {candidates.stop}", hint="name one: --port"
        )
    return chosen


def listener_of(port: int) -> Listener | None:
    """Who listens on the port, where the kernel lets this user see it."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not inodes.isdisjoint(_open_files(process)):
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                return Listener(int(process.name), tuple(command.rstrip("\0").split("\0")))
        except OSError:
            continue  # another user's process, or one that has just ended
    return None


def _open_files(process: Path) -> Iterator[str]:
    for fd in (process / "fd").iterdir():
        # One that was closed since hides no other: the listing of this very process always has one, its own.
        with suppress(FileNotFoundError):
            yield str(fd.readlink())


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    return inodes


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768
    return start if start > _LOWEST + 1_000 else 32_768
