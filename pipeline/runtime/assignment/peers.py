"""What the workers of an app see of each other's end: `WatchedPeers` watches, is watched, and writes notes about it.

    1 the process listens, and notes its address
    2 it watches the processes that the circle assigns to it (`core.departures.watched_by`)
    3 a process has ended: its watcher notes a departure, from its own thread, because the processing thread may be in
      a handler
    4 every worker reads the note, the watcher included: the process no longer counts as a member
    5 a process that reads its own departure revokes it, and is not watched for a time

A crash before 3 leaves the death to the second watcher, and to Kafka's session time-out. The fence decides which
process may write, so a wrong departure costs a restore.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from pipeline.core.departures import Departure, Departures, PeerAddress, Revocation, immunity_s, watched_by
from pipeline.core.membership import Member
from pipeline.core.notes import encode_note
from pipeline.errors import PipelineError
from pipeline.ports import error_fields
from pipeline.ports.peers import PeerTarget
from pipeline.runtime.environment import Environment

__all__ = ["WatchedPeers"]

CHECK_S = 1.0
WATCHED_AFTER_S = 5.0  # how long it must be watched, or not be watched, before it says so


class WatchedPeers:
    """Processing thread only, except for step 3.

    Args:
        me: This process.
        topic: The topic of the notes.
        environment: The ports.
        note: Writes a note of this process soon.
    """

    def __init__(
        self,
        me: Member,
        topic: str,
        environment: Environment,
        note: Callable[[Revocation | PeerAddress], None],
    ) -> None:
        self._me = me
        self._topic = topic
        self._environment = environment
        self._note = note
        self._departures = Departures()
        self._addresses: dict[str, PeerAddress] = {}
        self._address: PeerAddress | None = None  # where this process listens
        self._watched_since_s: tuple[bool, float] = (False, 0.0)
        self._immune_until_s: dict[str, float] = {}  # by process
        self._targets: frozenset[PeerTarget] = frozenset()
        self._next_check_s = 0.0
        self._leaving = False

    @property
    def departed(self) -> Collection[str]:
        """The processes that have left."""
        return self._departures.processes

    @property
    def reached(self) -> int:
        """The watched processes that answer."""
        return self._environment.peers.reached

    @property
    def targets(self) -> int:
        """The processes that this one has to watch."""
        return len(self._targets)

    def listen(self) -> None:
        """Step 1."""
        place = self._environment.peers.listen(self._me.process)
        if place is not None:
            self._say(PeerAddress(self._me.worker, self._me.process, *place))

    def merge(self, about: Departure | Revocation | PeerAddress, now_s: float) -> None:
        """Steps 4 and 5: a note was read. Notes come in the order in which they were written."""
        if isinstance(about, PeerAddress):
            self._addresses[about.worker] = about
        elif isinstance(about, Revocation):
            self._departures.revoke(about)
            self._immune_until_s[about.process] = now_s + immunity_s(about.number)
        else:
            self._departures.depart(about)
            if about.process == self._me.process and about.by and not self._leaving:
                self._revoke(about)

    def turn(self, workers: Mapping[str, Member], now_s: float, *, changed: bool) -> None:
        """Step 2. `workers`: the living ones. `changed`: whether they, or their addresses, may have changed."""
        if self._address is None or self._leaving or not (changed or now_s >= self._next_check_s):
            return
        self._next_check_s = now_s + CHECK_S
        living = {
            worker: self._addresses[worker]
            for worker, member in workers.items()
            if worker in self._addresses and self._addresses[worker].process == member.process
        }
        targets = frozenset(
            PeerTarget(worker, to.process, to.host, to.port, self._departures.number(worker, to.process))
            for worker in watched_by(self._me.worker, living)
            for to in [living[worker]]
            if now_s >= self._immune_until_s.get(to.process, 0.0)
        )
        if targets != self._targets:
            self._targets = targets
            self._environment.peers.watch(targets, self._note_death)
        self._say_whether_watched(self._address, now_s)
        processes = {member.process for member in workers.values()}
        self._immune_until_s = {each: at for each, at in self._immune_until_s.items() if each in processes}

    def leave(self) -> None:
        """The process leaves: it no longer revokes its departure, and watches no others."""
        self._leaving = True

    def close(self) -> None:
        """Stop listening, after the departure was noted."""
        self._environment.peers.close()

    def _say(self, address: PeerAddress) -> None:
        self._address = self._addresses[self._me.worker] = address
        self._note(address)

    def _say_whether_watched(self, address: PeerAddress, now_s: float) -> None:
        watched, since_s = self._watched_since_s
        if watched != (self._environment.peers.watchers > 0):
            self._watched_since_s = not watched, now_s
        elif watched != address.watched and now_s - since_s >= WATCHED_AFTER_S:
            self._say(address._replace(watched=watched))

    def _revoke(self, departure: Departure) -> None:
        me = self._me
        number = max(self._departures.number(me.worker, me.process), departure.number) + 1
        self._environment.log.warning("departure_revoked", by=departure.by, number=number)
        revocation = Revocation(me.worker, me.process, number)
        self._departures.revoke(revocation)
        self._note(revocation)

    def _note_death(self, target: PeerTarget) -> None:
        """Step 3. From any thread."""
        departure = Departure(target.worker, target.process, self._me.worker, target.number)
        note = encode_note(None, departure)

        def announce() -> None:
            try:
                self._environment.members.announce(self._topic, [note])
            except PipelineError as error:
                self._environment.log.info("notes_not_written", **error_fields(error))

        self._environment.log.warning("peer_died", peer=target.worker, process=target.process)
        self._environment.executor.submit(announce)
