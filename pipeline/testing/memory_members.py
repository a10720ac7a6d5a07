"""Consumer groups in memory: `MemoryGroups` of a broker, `MemoryMembers` of one worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import InvariantError
from pipeline.ports import Clock, Output

if TYPE_CHECKING:
    from pipeline.testing.memory_log import MemoryBroker

__all__ = ["MemoryGroups", "MemoryMembers", "Session"]

SESSION_S = 10.0


class Session:
    """A member: alive for as long as its worker makes progress, by the clock."""

    def __init__(self, client_id: str, progress: Callable[[], object], clock: Clock) -> None:
        self.client_id = client_id
        self._progress = progress
        self._clock = clock
        self._last: object = None
        self._seen_s = clock.monotonic_s()

    @property
    def alive(self) -> bool:
        now, progress = self._clock.monotonic_s(), self._progress()
        if progress != self._last:
            self._last, self._seen_s = progress, now
        return now - self._seen_s <= SESSION_S


class MemoryGroups:
    """The members of every group. One that is missed is listed again when it makes progress."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Session]] = {}

    def join(self, group: str, session: Session) -> None:
        self._sessions.setdefault(group, []).append(session)

    def leave(self, group: str, session: Session) -> None:
        self._sessions[group].remove(session)

    def member_ids(self, group: str) -> list[str]:
        return [session.client_id for session in self._sessions.get(group, []) if session.alive]


class MemoryMembers:
    """`ports.Members`. A worker that makes no progress for the session time-out is missed."""

    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._joined: tuple[str, Session] | None = None

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        if self._broker.describe(topic) is None:
            raise InvariantError(f"members of {consumer_group} subscribe to {topic}, which does not exist")
        session = Session(client_id, progress, self._clock)
        self._joined = consumer_group, session
        self._broker.groups.join(consumer_group, session)

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        with self._broker.faults.at("announce"):
            for key, value in notes:
                self._broker.produce(Output(topic, key, value, 0), partition=0)

    def leave(self) -> None:
        if self._joined is not None:
            self._broker.groups.leave(*self._joined)
            self._joined = None
