"""The history of the tasks' owners: `Moves`, from the notes in the workers' topic, which `NotesReader` reads.

Notes are hints, and the topic is compacted. So the history may have gaps, and begins at an unknown time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.departures import Departure
from pipeline.core.names import JOURNAL_READER, TaskId, TopicPartition, workers_topic
from pipeline.core.notes import About, Claim, Owner, decode_note
from pipeline.ops.overview import Clients
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import Clock

__all__ = ["Move", "Moves", "NotesReader", "grouped"]

_KEPT = 1_000
_TOGETHER_MS = 3_000  # equal moves within this time are one
_DEPARTED_MS = 60_000  # how long after its release a process may note that it leaves

_MOST_OFFSETS = 5_000  # of the topic's end, in one read


@dataclass(frozen=True, slots=True)
class Move:
    """One event in the history of tasks.

    `kind`: acquire, release, claim or failure. `before`: the worker that had the task before an acquire; empty if there
    was none. `seq`: of the acquire entry.
    """

    at_ms: int
    kind: str
    tasks: tuple[TaskId, ...]
    worker: str
    before: str
    why: str
    seq: int = 0


class Moves:
    """Takes the notes in the order of the topic; `events` are in the same order."""

    def __init__(self) -> None:
        self.events: deque[Move] = deque(maxlen=_KEPT)
        self._owners: dict[TaskId, Owner] = {}
        self._claims: dict[TaskId, Claim] = {}
        self._departed: dict[str, int] = {}

    def take(self, at_ms: int, task: TaskId, about: About) -> None:
        """Add a note. `at_ms`: when it was written."""
        if isinstance(about, Departure):
            self._departed[about.process] = at_ms
            self._explain(about)
        elif isinstance(about, Claim):
            self._take_claim(at_ms, task, about)
        elif isinstance(about, Owner):
            self._take_owner(at_ms, task, about)

    def _take_owner(self, at_ms: int, task: TaskId, owner: Owner) -> None:
        before = self._owners.get(task)
        if before is not None and owner.order < before.order:
            return  # an older note that was written late
        self._owners[task] = owner
        problem = owner.problem.partition("\n")[0]
        if before is None or owner.seq > before.seq:
            if not owner.released:
                worker = before.worker if before is not None else ""
                why = _why(before, owner, departed=self._has_departed(before))
                self.events.append(Move(at_ms, "acquire", (task,), owner.worker, worker, why, owner.seq))
        elif owner.released and not before.released and not problem:
            why = "it is handed over to another worker, or its worker stops"
            if owner.process in self._departed:
                why = f"{owner.worker} was stopped"
            self.events.append(Move(at_ms, "release", (task,), owner.worker, "", why, owner.seq))
        if problem and (before is None or before.problem != owner.problem):
            self.events.append(Move(at_ms, "failure", (task,), owner.worker, "", problem, owner.seq))

    def _take_claim(self, at_ms: int, task: TaskId, claim: Claim) -> None:
        before = self._claims.get(task)
        self._claims[task] = claim
        if claim.problem and (before is None or before.problem != claim.problem):
            why = claim.problem.partition("\n")[0]
            self.events.append(Move(at_ms, "failure", (task,), claim.worker, "", why))
        elif claim.worker and not claim.ready and (before is None or before.process != claim.process):
            why = "it fences the previous owner, and restores the state"
            self.events.append(Move(at_ms, "claim", (task,), claim.worker, "", why))

    def _has_departed(self, owner: Owner | None) -> bool:
        return owner is not None and owner.process in self._departed

    def _explain(self, departure: Departure) -> None:
        """A process notes that it leaves after it has released its tasks: say so in these releases."""
        at_ms = self._departed[departure.process]
        for index, move in enumerate(self.events):
            recent = at_ms - move.at_ms < _DEPARTED_MS
            if move.kind == "release" and move.worker == departure.worker and recent:
                why = f"{departure.worker} was stopped"
                self.events[index] = Move(move.at_ms, move.kind, move.tasks, move.worker, "", why, move.seq)


def _why(before: Owner | None, now: Owner, *, departed: bool) -> str:
    """Why a task has another owner now, from the last note about the one before."""
    if before is None:
        return "no earlier owner is recorded"
    if before.worker == now.worker:
        again = "it was restored again by the same process"
        restarted = (
            "the worker was restarted" if before.released else f"{now.worker} was restarted after a crash"
        )
        return again if before.process == now.process else restarted
    if before.problem and before.released:
        return f"it had failed on {before.worker}"
    if departed:  # a process that was killed releases nothing: its supervisor or another worker notes its end
        return f"{before.worker} {'was stopped' if before.released else 'ended'}"
    if before.released:
        return f"{before.worker} handed it over, to balance the load"
    return f"{before.worker} ended without releasing it, or was unreachable"


def grouped(moves: Iterable[Move]) -> Sequence[Move]:
    """The moves, with those that happened together to several tasks as one. In the order of time."""
    found: list[Move] = []
    open_: dict[tuple[str, str, str, str], int] = {}
    for move in sorted(moves, key=lambda each: each.at_ms):
        key = move.kind, move.worker, move.before, move.why
        index = open_.get(key)
        if index is not None and move.at_ms - found[index].at_ms <= _TOGETHER_MS:
            first = found[index]
            tasks = (*first.tasks, *move.tasks)
            found[index] = Move(first.at_ms, first.kind, tasks, first.worker, first.before, first.why)
        else:
            open_[key] = len(found)
            found.append(move)
    return found


class NotesReader:
    """Use from one thread at a time.

    Args:
        app: The name of the app.
        clients: For Kafka.
        clock: The clock.
    """

    def __init__(self, app: str, clients: Clients, clock: Clock) -> None:
        self._app = app
        self._clients = clients
        self._clock = clock
        self._place = TopicPartition(workers_topic(app), 0)
        self._position = 0
        self._moves = Moves()

    def read(self) -> Moves:
        """The history up to now. Raises PipelineError."""
        if not self._position and not self._clients.cluster.describe([self._place.topic]):
            return self._moves  # no worker has ever started
        reader = self._clients.reader
        bounds = reader.bounds(self._place)
        if bounds.stable_end < self._position:
            self._position, self._moves = 0, Moves()  # the topic was created again
        start = max(bounds.start, self._position, bounds.stable_end - _MOST_OFFSETS)
        last = last_committed(reader, self._place, start, bounds.stable_end)
        if last is not None:
            with closing(self._clients.sources.open(JOURNAL_READER)) as source:
                for record in read_topic(source, self._clock, {self._place: start}, {self._place: last}):
                    note = decode_note(self._app, record.value() or b"")
                    if note is not None:
                        self._moves.take(max(0, record.timestamp()[1]), *note)
        self._position = bounds.stable_end
        return self._moves
