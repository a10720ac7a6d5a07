"""The TCP connections of a process of this host, from /proc: `ports_of`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Connection", "connections_of"]

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
