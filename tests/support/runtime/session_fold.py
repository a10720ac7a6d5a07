"""Sessions, computed from the events and the clocks at which they were handled, without the code of the package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["SessionFold"]

Numbered = tuple[int, int]  # number and time of an event


@dataclass
class SessionFold:
    """The sessions of one key. An event is near a session if it is near one of its events."""

    gap_ms: int
    grace_ms: int
    late: list[int] = field(default_factory=list)
    _groups: list[list[Numbered]] = field(default_factory=list)

    def add(self, number: int, at_ms: int, clock_ms: int) -> None:
        """An event that was handled when the clock of its partition was at this time."""
        over_ms = clock_ms - self.grace_ms
        near = [
            group
            for group in self._groups
            if self._open(group, over_ms) and any(abs(at_ms - other) <= self.gap_ms for _, other in group)
        ]
        if not near and at_ms + self.gap_ms < over_ms:
            self.late.append(number)
            return
        near.sort(key=_start)
        self._groups = [group for group in self._groups if not any(group is each for each in near)]
        self._groups.append([*(each for group in near for each in group), (number, at_ms)])

    def sessions(self) -> Iterable[tuple[int, int, tuple[int, ...]]]:
        """The start, the time of the last event and the numbers of each session."""
        for group in self._groups:
            times = [at_ms for _, at_ms in group]
            yield min(times), max(times), tuple(number for number, _ in group)

    def _open(self, group: list[Numbered], over_ms: int) -> bool:
        return max(at_ms for _, at_ms in group) + self.gap_ms >= over_ms


def _start(group: list[Numbered]) -> int:
    return min(at_ms for _, at_ms in group)
