"""The port to the other workers of an app, over TCP: `Peers`.

A worker listens, and watches some of the others. Nothing but the end of a process is ever said: a listener accepts no
commands, and all that is agreed between workers goes through Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

__all__ = ["NoPeers", "PeerTarget", "Peers"]


class PeerTarget(NamedTuple):
    """A process to watch. `number`: that of its last revocation (`core.departures`)."""

    worker: str
    process: str
    host: str
    port: int
    number: int = 0


class Peers(Protocol):
    """The connections to other workers. Every call returns at once, and none raises."""

    def listen(self, process: str) -> tuple[str, int] | None:
        """Listen as this process. Returns host and port for the others; None if it does not listen."""
        ...

    def watch(self, targets: Collection[PeerTarget], died: Callable[[PeerTarget], None]) -> None:
        """Watch these processes and no others. `died` is called once for a process that has ended, on any thread.

        A target that was given before keeps its connection.
        """
        ...

    @property
    def watchers(self) -> int:
        """The number of open connections to the listener."""
        ...

    @property
    def reached(self) -> int:
        """The number of watched processes that have answered and are still connected."""
        ...

    def close(self) -> None:
        """End all connections and stop listening."""
        ...


class NoPeers:
    """`Peers` for a process that takes no part."""

    watchers = 0
    reached = 0

    def listen(self, process: str) -> tuple[str, int] | None:  # noqa: ARG002 - the port's
        """Do not listen."""
        return None

    def watch(self, targets: Collection[PeerTarget], died: Callable[[PeerTarget], None]) -> None:
        """Watch nothing."""

    def close(self) -> None:
        """Do nothing."""
