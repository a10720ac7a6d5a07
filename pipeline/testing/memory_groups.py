"""The members of consumer groups in memory: `MemoryGroups` of a broker."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.ports import Clock

__all__ = ["MemoryGroups", "Session"]

SESSION_S = 10.0


class Session:
    """A member of a group. It is alive if its worker has made progress in the last `SESSION_S` seconds."""

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
    """The members of every group. One whose session has expired is listed again when it makes progress."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Session]] = {}

    def join(self, group: str, session: Session) -> None:
        self._sessions.setdefault(group, []).append(session)

    def leave(self, group: str, session: Session) -> None:
        self._sessions[group].remove(session)

    def member_ids(self, group: str) -> list[str]:
        return [session.client_id for session in self._sessions.get(group, []) if session.alive]
