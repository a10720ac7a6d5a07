"""Finds the record whose outputs Kafka refuses: `RefusalSearch`, for one task, across its restores.

A refused commit is aborted as a whole, and the error says at most which topic refused something. Nothing of it has
happened, so its records are processed again, as after a crash, in smaller commits:

    any --refused, n records--> at most n/2 records a commit --refused, 1 record--> that record is guilty
     ^                            |  committed past them: twice as many                |
     +------ committed past all that was refused                                       its policy is applied

Each smaller commit is an ordinary one: outputs, tables and positions of its records, or nothing. So a crash at any
moment leaves the same as a crash during any other commit. The findings are in memory only; after a crash, the search
starts again. Each refusal makes the commits smaller or finds a guilty record, so the search ends. When the commit of
a guilty record is refused again, not even its dead letter is accepted: that stops the task.

The processing thread writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.errors import FatalTaskError, RefusedError
from pipeline.ports import Record

__all__ = ["RefusalSearch", "RefusedOutputError", "Sealed"]


class RefusedOutputError(ValueError):
    """Kafka refuses what was sent for a record."""


class Sealed(NamedTuple):
    """A commit under way. `positions`: those after it. `records`: how many it has; `last`: topic and offset of one."""

    positions: Mapping[str, int]
    records: int = 0
    last: tuple[str, int] | None = None


class RefusalSearch:
    """`limit`: records in one commit; `configured` of them unless a commit was refused."""

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self.limit = configured
        self._until: dict[str, int] = {}  # positions past all that was refused
        self._suspects: dict[str, int] = {}  # positions past what was refused last
        self._guilty: dict[tuple[str, int], str] = {}
        self._at: Mapping[str, int] = {}  # positions of the last commit

    @property
    def active(self) -> bool:
        """Whether commits are to be smaller than configured."""
        return bool(self._until)

    def begin(self, positions: Mapping[str, int]) -> None:
        """The task goes live at these positions. After a reset they are lower, and there is nothing to search for."""
        if _below(positions, self._at):
            self._forget()
        self._at = positions

    def refused(self, task: str, error: RefusedError, sealed: Sealed) -> None:
        """A commit was refused. Raises FatalTaskError when it is not a record that can be found."""
        count, place = sealed.records, sealed.last
        if not count or place is None:
            raise FatalTaskError(f"task {task}: {error.message}", hint=error.hint) from error
        self._suspects = dict(sealed.positions)
        for topic, position in self._suspects.items():
            self._until[topic] = max(position, self._until.get(topic, 0))
        if count > 1:
            self.limit = max(1, min(count, self.limit) // 2)
            return
        self.limit = 1
        if place in self._guilty:
            raise FatalTaskError(
                f"task {task}: the record {place[0]} offset {place[1]} can neither be processed nor put aside: "
                f"{error.message}",
                hint=error.hint,
            ) from error
        self._guilty[place] = error.message

    def committed(self, positions: Mapping[str, int]) -> None:
        """A commit with these positions has happened."""
        self._at = positions
        if not self._until or _below(positions, self._suspects):
            return  # a guilty record is still to come: the search continues in what is left
        if _below(positions, self._until):
            self.limit = min(self.limit * 2, self._configured)
            return
        self._forget()

    def _forget(self) -> None:
        self.limit = self._configured
        self._until.clear()
        self._suspects.clear()
        self._guilty.clear()

    def slices(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Records in runs that fit one commit."""
        for at in range(0, len(records), self.limit):
            yield records[at : at + self.limit]

    def runs(
        self, topic: str, records: Sequence[Record]
    ) -> Iterator[tuple[Sequence[Record], RefusedOutputError | None]]:
        """Records of a topic, in order, with each guilty one alone, and why it is guilty."""
        begin = 0
        if self._guilty:
            for at, record in enumerate(records):
                said = self._guilty.get((topic, record.offset()))
                if said is None:
                    continue
                if at > begin:
                    yield records[begin:at], None
                yield [record], RefusedOutputError(f"Kafka refuses what was sent for it: {said}")
                begin = at + 1
        if begin < len(records):
            yield records[begin:], None


def _below(positions: Mapping[str, int], marks: Mapping[str, int]) -> bool:
    return any(positions.get(topic, mark) < mark for topic, mark in marks.items())
