"""Finds the record whose outputs Kafka refuses: `RefusalSearch`, for one task, across its restores.

A refused commit is aborted as a whole, and the error names at most the topic. The commit has not happened, so its
records are processed again, as after a crash, in smaller commits:

    any --refused, n records--> at most n/2 records per commit --refused, 1 record--> that record is guilty
     ^                            |  committed past them: twice as many                |
     +------ committed past all that was refused                                       its policy is applied

Each smaller commit is an ordinary one: outputs, tables and positions of its records, or nothing. So a crash at any
moment leaves the same as a crash during any other commit. The findings are in memory only; after a crash, the search
starts again. Each refusal makes the commits smaller or finds a guilty record, so the search ends. When the commit of
a guilty record is refused again, not even its dead letter is accepted: that stops the task.

Due steps, such as ends of windows, count like records. They have no positions, so they are counted instead.

The processing thread writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.errors import FatalTaskError, RefusedError
from pipeline.ports import Record

__all__ = ["RefusalSearch", "RefusedOutputError", "Sealed"]


class RefusedOutputError(ValueError):
    """Kafka refuses an output of a record."""


class Sealed(NamedTuple):
    """A commit in progress.

    `positions`: those after it. `records`: their number. `last`: topic and offset of one record. `steps`: the number of
    due steps, of which `step` is one.
    """

    positions: Mapping[str, int]
    records: int = 0
    last: tuple[str, int] | None = None
    steps: int = 0
    step: Record | None = None


class RefusalSearch:
    """`limit`: the maximum records of one commit, which is `configured` unless a commit was refused."""

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self.limit = configured
        self._until: dict[str, int] = {}  # positions after all refused commits
        self._suspects: dict[str, int] = {}  # positions after the last refused commit
        self._guilty: dict[tuple[str, int | str], str] = {}
        self._steps_until = 0  # due steps until all refused commits are done again
        self._steps_suspected = 0  # those of the last refused commit
        self._at: Mapping[str, int] = {}  # positions of the last commit

    @property
    def active(self) -> bool:
        """Whether commits must be smaller than configured."""
        return bool(self._until or self._steps_until)

    def begin(self, positions: Mapping[str, int]) -> None:
        """The task starts at these positions. After a reset they are lower, and the search ends."""
        if _below(positions, self._at):
            self._forget()
        self._at = positions

    def refused(self, task: str, error: RefusedError, sealed: Sealed) -> None:
        """A commit was refused. Raises FatalTaskError if no record can be the cause."""
        count = sealed.records + sealed.steps
        place: tuple[str, int | str] | None = sealed.last
        if sealed.step is not None and not sealed.records:
            place = step_place(sealed.step)
        if not count or place is None:
            raise FatalTaskError(f"task {task}: {error.message}", hint=error.hint) from error
        self._steps_suspected = sealed.steps
        self._steps_until = max(sealed.steps, self._steps_until)
        self._suspects = dict(sealed.positions)
        for topic, position in self._suspects.items():
            self._until[topic] = max(position, self._until.get(topic, 0))
        if count > 1:
            self.limit = max(1, min(count, self.limit) // 2)
            return
        self.limit = 1
        if place in self._guilty:
            raise FatalTaskError(
                f"task {task}: the record {place[0]} offset {place[1]} can neither be processed nor become "
                f"a dead letter: {error.message}",
                hint=error.hint,
            ) from error
        self._guilty[place] = error.message

    def committed(self, positions: Mapping[str, int], steps: int = 0) -> None:
        """A commit with these positions and this number of due steps has happened."""
        self._at = positions
        if not self.active:
            return
        self._steps_suspected = max(0, self._steps_suspected - steps)
        self._steps_until = max(0, self._steps_until - steps)
        if self._steps_suspected or _below(positions, self._suspects):
            return  # a guilty record follows: the search continues in the remaining records
        if self._steps_until or _below(positions, self._until):
            self.limit = min(self.limit * 2, self._configured)
            return
        self._forget()

    def _forget(self) -> None:
        self.limit = self._configured
        self._steps_until = self._steps_suspected = 0
        self._until.clear()
        self._suspects.clear()
        self._guilty.clear()

    def slices(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Split records into runs that fit in one commit."""
        for at in range(0, len(records), self.limit):
            yield records[at : at + self.limit]

    def refused_step(self, step: Record) -> RefusedOutputError | None:
        """Why Kafka refuses an output of a due step; None if it is not known to."""
        reason = self._guilty.get(step_place(step)) if self._guilty else None
        return None if reason is None else RefusedOutputError(f"Kafka rejects an output of it: {reason}")

    def runs(
        self, topic: str, records: Sequence[Record]
    ) -> Iterator[tuple[Sequence[Record], RefusedOutputError | None]]:
        """Runs of a topic's records, in order. Each guilty record is alone, with the reason."""
        begin = 0
        if self._guilty:
            for at, record in enumerate(records):
                reason = self._guilty.get((topic, record.offset()))
                if reason is None:
                    continue
                if at > begin:
                    yield records[begin:at], None
                yield [record], RefusedOutputError(f"Kafka rejects an output of this record: {reason}")
                begin = at + 1
        if begin < len(records):
            yield records[begin:], None


def step_place(step: Record) -> tuple[str, str]:
    """Identifies a due step."""
    return step.topic(), getattr(step, "topic_id", "")


def _below(positions: Mapping[str, int], marks: Mapping[str, int]) -> bool:
    return any(positions.get(topic, mark) < mark for topic, mark in marks.items())
