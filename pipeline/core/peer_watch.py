"""How a worker judges another one from their TCP connection: whether its process has ended. Pure.

Each worker listens on a TCP port and greets every connection with the name of its process (`greeting`). The kernel
closes the connections of a process that ends, however it ends. So the end of a connection is the first sign of a death.
It is not a proof: a device between the hosts can end a connection, too. Silence is no sign at all: a stopped or busy
process keeps its connections, and its kernel accepts new ones.

::

               greeted                    ended, reset
      UNMET ------------> WATCHED ---------------------------> DOUBTED
                             ^                                  |   |
                             |             greeted              |   | refused, greeted by another process,
                             +----------------------------------+   | or unreachable for UNREACHABLE_S
                                                                    v
                                                                  DEAD

| state   | signal                                       | next state                                              |
|---------|----------------------------------------------|---------------------------------------------------------|
| UNMET   | GREETED                                      | WATCHED                                                 |
| UNMET   | any other                                    | UNMET: the address may be wrong, so nothing is judged   |
| WATCHED | ENDED, RESET                                 | DOUBTED: connect again                                  |
| DOUBTED | GREETED                                      | WATCHED                                                 |
| DOUBTED | REFUSED, GREETED_BY_OTHER                    | DEAD: the port is free, or belongs to another process   |
| DOUBTED | UNREACHABLE, since ENDED for UNREACHABLE_S   | DEAD: a container that was removed with its network     |
| DOUBTED | UNREACHABLE otherwise                        | DOUBTED: Kafka's session time-out decides               |
| DOUBTED | ENDED, RESET, FOREIGN                        | DOUBTED, and UNREACHABLE no longer counts               |
| DEAD    | any                                          | DEAD                                                    |

An unreachable address counts only after ENDED, an orderly end that the kernel of the other host has sent. The listener
of a living process never ends a connection that sends nothing. A partition of the network ends no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from pipeline.errors import InvariantError

__all__ = [
    "MAX_GREETING",
    "UNREACHABLE_S",
    "PeerSignal",
    "PeerState",
    "PeerView",
    "greeted_by",
    "greeting",
]

MAX_GREETING = 256  # bytes
UNREACHABLE_S = 1.0
_FIRST_RETRY_S = 0.02
_RETRY_S = 0.1
_SLOW_RETRY_S = 1.0
_QUICK_S = 5.0  # how long a doubt is pursued quickly
_GREETING = re.compile(rb"pipeline-peer/1 ([0-9]{1,20}-[0-9a-f]{1,64})\n")


def greeting(process: str) -> bytes:
    """What the listener of a process sends on each connection."""
    found = f"pipeline-peer/1 {process}\n".encode()
    if not _GREETING.fullmatch(found):
        raise InvariantError(f"{process!r} is not the name of a process")
    return found


def greeted_by(received: bytes) -> str | None:
    """The process that sent this greeting. None if it is incomplete. Raises ValueError if it is not a greeting."""
    found = _GREETING.fullmatch(received)
    if found is not None:
        return found[1].decode()
    if b"\n" in received or len(received) >= MAX_GREETING:
        raise ValueError("not a greeting")
    return None


class PeerState(Enum):
    """What a watcher knows about a process."""

    UNMET = "unmet"
    WATCHED = "watched"
    DOUBTED = "doubted"
    DEAD = "dead"


class PeerSignal(Enum):
    """What happened to a connection, or to an attempt to connect.

    ENDED: end of file. RESET: any error of an open connection. FOREIGN: the answer is not a greeting. UNREACHABLE: the
    network reports no route, or does not answer in time.
    """

    GREETED = "greeted"
    GREETED_BY_OTHER = "greeted by another process"
    FOREIGN = "foreign"
    ENDED = "ended"
    RESET = "reset"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


_DEATHS = frozenset({PeerSignal.REFUSED, PeerSignal.GREETED_BY_OTHER})


@dataclass(frozen=True, slots=True)
class PeerView:
    """What a watcher knows about one process.

    `doubted_s`: when the connection ended, on the watcher's clock. `orderly`: it ended by an end of file, and nothing
    has answered since.
    """

    state: PeerState = PeerState.UNMET
    doubted_s: float = 0.0
    orderly: bool = False

    def after(self, signal: PeerSignal, now_s: float) -> PeerView:
        """The view after a signal, by the table of this module."""
        if self.state is PeerState.DEAD:
            return self
        if signal is PeerSignal.GREETED:
            return PeerView(PeerState.WATCHED)
        if self.state is PeerState.UNMET:
            return self
        if self.state is PeerState.WATCHED:
            return PeerView(PeerState.DOUBTED, now_s, orderly=signal is PeerSignal.ENDED)
        return self._after_doubt(signal, now_s)

    def _after_doubt(self, signal: PeerSignal, now_s: float) -> PeerView:
        if signal in _DEATHS:
            return replace(self, state=PeerState.DEAD)
        if signal is not PeerSignal.UNREACHABLE:
            return replace(self, orderly=False)
        gone = self.orderly and now_s - self.doubted_s >= UNREACHABLE_S
        return replace(self, state=PeerState.DEAD) if gone else self

    def retry_s(self, now_s: float) -> float:
        """The seconds until the next attempt to connect."""
        if self.state is not PeerState.DOUBTED or now_s - self.doubted_s > _QUICK_S:
            return _SLOW_RETRY_S
        return _FIRST_RETRY_S if now_s - self.doubted_s < 4 * _FIRST_RETRY_S else _RETRY_S
