"""The TCP connections between simulated workers: `MemoryPeers` on one `MemoryNetwork`.

The network knows which processes live. A test kills processes, and can accuse living ones: a watcher then reports a
death that did not happen, as after a fault of a device between the hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pipeline.ports.peers import PeerTarget

__all__ = ["MemoryNetwork", "MemoryPeers"]


class MemoryNetwork:
    """All listeners of a test, by process."""

    def __init__(self) -> None:
        self._peers: dict[str, MemoryPeers] = {}

    def add(self, process: str, peers: MemoryPeers) -> tuple[str, int]:
        """A process listens. Returns its address."""
        self._peers[process] = peers
        return "127.0.0.1", len(self._peers)

    def remove(self, process: str) -> None:
        """A process has ended."""
        self._peers.pop(process, None)

    def lives(self, process: str) -> bool:
        """Whether the process listens."""
        return process in self._peers

    def accuse(self, process: str) -> None:
        """Let every watcher of this process believe that it has ended."""
        for peers in list(self._peers.values()):
            peers.accuse(process)

    def watchers_of(self, process: str) -> int:
        """The number of living processes that watch this one."""
        return sum(process in peers.watching for peers in self._peers.values())


class MemoryPeers:
    """`ports.Peers`. `turn` reports the deaths, as the thread of a process does; a stopped process calls it later."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._process = ""
        self._targets: dict[str, PeerTarget] = {}  # by process; without those that were reported
        self._given: frozenset[PeerTarget] = frozenset()
        self._died: Callable[[PeerTarget], None] | None = None
        self._accused: set[str] = set()

    def listen(self, process: str) -> tuple[str, int] | None:
        """Listen, always with success."""
        self._process = process
        return self._network.add(process, self)

    def watch(self, targets: Collection[PeerTarget], died: Callable[[PeerTarget], None]) -> None:
        """Watch these processes from now on. One that does not live is not met, and so never reported."""
        added = {target for target in targets if target not in self._given}
        kept = {process: target for process, target in self._targets.items() if target in targets}
        self._targets = kept | {
            target.process: target for target in added if self._network.lives(target.process)
        }
        self._given, self._died = frozenset(targets), died

    def turn(self) -> None:
        """Report the processes that have ended, or were accused, each once."""
        for process, target in list(self._targets.items()):
            if self._died is not None and (process in self._accused or not self._network.lives(process)):
                del self._targets[process]
                self._died(target)
        self._accused.clear()

    def accuse(self, process: str) -> None:
        """Believe at the next turn that this process has ended."""
        self._accused.add(process)

    @property
    def watching(self) -> Collection[str]:
        """The processes that are watched and were met."""
        return self._targets.keys()

    @property
    def watchers(self) -> int:
        """The processes that watch this one."""
        return self._network.watchers_of(self._process)

    @property
    def reached(self) -> int:
        """The watched processes that were met."""
        return len(self._targets)

    def close(self) -> None:
        """Stop listening and watching."""
        self._network.remove(self._process)
        self._targets.clear()
