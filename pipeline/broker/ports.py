"""Network ports of this machine: whether one is free, which to choose, and which process uses one."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.broker.reporting import BrokerError

__all__ = ["HOST", "Listener", "choose_ports", "is_free", "listener_of"]

HOST = "127.0.0.1"
_LOWEST = 15_000
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Listener:
    """The process that listens on a port."""

    pid: int
    command: tuple[str, ...]


def is_free(port: int) -> bool:
    """Whether a server can listen on the port now."""
    with socket.socket() as probe:
        # As in Java: connections of an earlier broker in TIME_WAIT do not prevent a new listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_ports(count: int, *, avoid: Collection[int] = ()) -> list[int]:
    """Choose free ports below the ephemeral range, from which the kernel assigns ports to outgoing connections.

    The kernel may assign a port of that range to any program while a broker is stopped. A client that reconnects to a
    stopped local broker can even get the broker's port as its own and connect to itself.
    """
    chosen: list[int] = []
    candidates = range(_LOWEST, _ephemeral_start())
    for port in _tried(candidates):
        if len(chosen) == count:
            break
        if port not in avoid and is_free(port):
            chosen.append(port)
    if len(chosen) < count:
        raise BrokerError(
            f"no {count} free ports between {_LOWEST} and {candidates.stop}", hint="name one: --port"
        )
    return chosen


def _tried(candidates: range) -> Iterable[int]:
    """The ports to try: random ones, so that brokers that start at the same time try different ones."""
    return random.SystemRandom().sample(candidates, k=min(1_000, len(candidates)))


def listener_of(port: int) -> Listener | None:
    """The process that listens on the port; None if there is none, or if this user may not see it."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not inodes.isdisjoint(_open_files(process)):
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                return Listener(int(process.name), tuple(command.rstrip("\0").split("\0")))
        except OSError:
            continue  # a process of another user, or one that has just ended
    return None


def _open_files(process: Path) -> Iterator[str]:
    for fd in (process / "fd").iterdir():
        # A file that was closed meanwhile must not hide others. This process always lists one: its own listing.
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
