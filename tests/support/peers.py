"""Listeners and watchers on real sockets of this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any

import structlog

from pipeline.config import KafkaSettings, WorkerSettings
from pipeline.peers.sockets import PeerSockets
from pipeline.ports.peers import PeerTarget
from tests.support.waiting import wait_until

_PROGRAM = """
import os, signal, sys
from tests.support.peers import peers
found = peers()
address = found.listen(sys.argv[1])
if len(sys.argv) > 2 and os.fork() == 0:
    sys.stdin.read()  # until the test ends
    os._exit(0)
print(*address, flush=True)
signal.pause()
"""


def peers(log: structlog.testing.CapturingLogger | None = None, **settings: Any) -> PeerSockets:
    """A process's part, on loopback."""
    worker = WorkerSettings(**{"peer_host": "127.0.0.1", **settings})
    return PeerSockets(KafkaSettings(), worker, log or structlog.testing.CapturingLogger())


@contextmanager
def listening(process: str, **settings: Any) -> Iterator[tuple[PeerSockets, PeerTarget]]:
    """A listener in this process, and how to watch it."""
    found = peers(**settings)
    address = found.listen(process)
    assert address is not None
    try:
        yield found, PeerTarget(f"of-{process}", process, *address)
    finally:
        found.close()


@contextmanager
def listening_process(
    process: str, *, forks: bool = False
) -> Iterator[tuple[subprocess.Popen[str], PeerTarget]]:
    """A listener in a process of its own. `forks`: with a child that lives until the end."""
    command = [sys.executable, "-c", _PROGRAM, process, *(["forks"] if forks else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            host, port = child.stdout.readline().split()
            yield child, PeerTarget(f"of-{process}", process, host, int(port))
        finally:
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
            child.kill()


def end_connections(found: PeerSockets) -> None:
    """End all connections to a listener, as a device between the hosts does."""
    assert found._listener is not None
    for connection in list(found._listener._connections):
        connection.shutdown(socket.SHUT_WR)


class Watching:
    """A watcher, and the deaths that it has reported."""

    def __init__(self) -> None:
        self.log = structlog.testing.CapturingLogger()
        self.peers = peers(self.log)
        self._deaths: Queue[PeerTarget] = Queue()

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.peers.close()

    def watch(self, *targets: PeerTarget, met: int | None = None) -> None:
        """Watch these, and wait until `met` of them have answered; all by default."""
        self.peers.watch(targets, self._deaths.put)
        expected = len(targets) if met is None else met
        wait_until(lambda: self.peers.reached == expected, lambda: "the targets do not answer")

    def death(self, within_s: float = 30.0) -> PeerTarget:
        """The next death."""
        return self._deaths.get(timeout=within_s)

    @property
    def deaths(self) -> list[PeerTarget]:
        """The deaths that were reported and not yet taken."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._deaths.get_nowait())
        return found
