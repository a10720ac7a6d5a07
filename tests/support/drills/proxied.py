"""This process as a worker behind a proxy of network drills: its connections, and what the proxy writes of itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.drills.network_faults import ProxyNote, ProxyPlace
from pipeline.drills.workers import Process

__all__ = ["Proxied", "behind_proxy"]


class Proxied(NamedTuple):
    """The place of the proxy, and its note. `direct`: the port of a broker to which there is a connection, too."""

    place: ProxyPlace
    note: ProxyNote
    direct: int

    def write(self, **fields: object) -> None:
        """Let the proxy write its note with these fields."""
        self.place.write_note(msgspec.structs.replace(self.note, **fields))


@contextmanager
def behind_proxy(directory: Path) -> Iterator[Proxied]:
    """Connect this process to two ports of its own, one of which is that of a proxy in this drills' directory."""
    with ExitStack() as opened:
        listeners = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [int(listener.getsockname()[1]) for listener in listeners]
        for port in ports:
            opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        proxy, direct = ports
        note = ProxyNote(Process.of(os.getpid()), f"127.0.0.1:{proxy}", "127.0.0.1:1", [proxy])
        found = Proxied(ProxyPlace.of_port(directory, proxy), note, direct)
        found.write()
        yield found
