"""Who watches whom, and which processes have left: the rules about departures. Pure.

A process notes its own departure at a clean stop, and a supervisor that of a child that has ended. Both are final. A
peer that has seen a process end notes a departure, too, with `by` and a number. The peer can be wrong. Then the living
process revokes the note:

    number      a revocation has a number above that of each departure that the process has read
    counts      a peer's departure counts if its number is not below the last revocation of that process
    immunity    after a revocation, no peer watches the process for a time, which doubles with each revocation

So a late note of a second watcher is void, and a device that ends living connections costs one restore a minute at
first, and then ever fewer. The numbers are those of SWIM (Das, Gupta and Motivala, 2002), where they are called
incarnations.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

__all__ = [
    "FINAL",
    "IMMUNITY_S",
    "MAX_WATCHED",
    "WATCHERS",
    "Departure",
    "DepartureRecord",
    "Departures",
    "HttpAddress",
    "PeerAddress",
    "Revocation",
    "immunity_s",
    "process_age",
    "watched_by",
]

FINAL = 2**31 - 1  # the number of a departure that cannot be revoked
IMMUNITY_S = 60.0
MAX_IMMUNITY_S = 3600.0
WATCHERS = 2
MAX_WATCHED = 16  # processes that one worker watches


def process_age(process: str) -> tuple[int, str]:
    """The sort key of processes by age: smaller for older ones, and equal for all workers that compare."""
    started_ms = process.partition("-")[0]
    return int(started_ms) if started_ms.isdecimal() else 0, process


class Departure(NamedTuple):
    """A process that has left. During a rebalance, Kafka removes a member only after its session time-out.

    `by`: the worker that has seen its end; empty if the process, or its supervisor, says so itself.
    """

    worker: str
    process: str
    by: str = ""
    number: int = FINAL


class DepartureRecord(NamedTuple):
    """The record that notes the departure of a process. Its supervisor writes it when the process has ended."""

    topic: str
    key: bytes
    value: bytes


class Revocation(NamedTuple):
    """A process lives, although peers have noted its departure."""

    worker: str
    process: str
    number: int


class HttpAddress(NamedTuple):
    """Where the HTTP port of a process can be reached, for queries."""

    worker: str
    process: str
    host: str
    port: int


class PeerAddress(NamedTuple):
    """Where a process listens for its peers. `watched`: whether a peer is connected."""

    worker: str
    process: str
    host: str
    port: int
    watched: bool = False


def immunity_s(number: int) -> float:
    """How long a process is not watched after its revocation `number`, from 1."""
    return float(min(MAX_IMMUNITY_S, IMMUNITY_S * 2 ** min(max(0, number - 1), 16)))


class Departures:
    """The departures that count, from notes in the order in which they were written. One process of a worker each."""

    def __init__(self) -> None:
        self._departed: dict[str, Departure] = {}
        self._revoked: dict[str, Revocation] = {}

    @property
    def processes(self) -> frozenset[str]:
        """The processes that have left. Older processes of their workers have left, too."""
        return frozenset(each.process for each in self._departed.values())

    def number(self, worker: str, process: str) -> int:
        """The number of the last revocation of a process; 0 if there is none."""
        found = self._revoked.get(worker)
        return found.number if found is not None and found.process == process else 0

    def add(self, note: Departure | Revocation) -> None:
        """A note was read."""
        if isinstance(note, Departure):
            self.depart(note)
        else:
            self.revoke(note)

    def depart(self, departure: Departure) -> None:
        """A process has left, or a peer says so."""
        before = self._departed.get(departure.worker)
        if before is not None and process_age(before.process) > process_age(departure.process):
            return
        if departure.number >= self.number(departure.worker, departure.process):
            self._departed[departure.worker] = departure

    def revoke(self, revocation: Revocation) -> None:
        """A process lives. A final departure stays."""
        worker, process, number = revocation
        if number <= self.number(worker, process):
            return
        self._revoked[worker] = revocation
        before = self._departed.get(worker)
        if before is not None and before.process == process and before.number < number:
            del self._departed[worker]


def _point(worker: str) -> bytes:
    return blake2b(worker.encode(), digest_size=8, person=b"peer-watch").digest()


def watched_by(me: str, addresses: Mapping[str, PeerAddress]) -> list[str]:
    """The workers that `me` watches, nearest first. `addresses`: of the living processes, by worker.

    The watchers of a worker are the next ones on a circle. If these all listen on its own host, the last of them is
    replaced by the next worker of another host, because a supervisor and all its workers may be killed at once.
    """
    circle = sorted(addresses, key=_point)
    if me not in addresses:
        return []
    at = circle.index(me)
    found = []
    for back in range(1, len(circle)):
        target = circle[at - back]
        if me in _watchers(target, at - back, circle, addresses):
            found.append(target)
            if len(found) == MAX_WATCHED:
                break
    return found


def _watchers(target: str, at: int, circle: list[str], addresses: Mapping[str, PeerAddress]) -> list[str]:
    nearest = [circle[(at + ahead) % len(circle)] for ahead in range(1, min(WATCHERS, len(circle) - 1) + 1)]
    host = addresses[target].host
    if any(addresses[worker].host != host for worker in nearest):
        return nearest
    for ahead in range(WATCHERS + 1, len(circle)):
        other = circle[(at + ahead) % len(circle)]
        if addresses[other].host != host:
            return [*nearest[:-1], other]
    return nearest
