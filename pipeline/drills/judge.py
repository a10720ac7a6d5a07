"""Judges the raw journals of an app: `Judge`. Each input offset must be in exactly one committed entry.

An entry of a task contains the input positions after it. With the positions of the entry before it, it covers an
interval of offsets of each input. The entry before it is the one whose chain value it continues, not the one that is
above it in the topic. So the judge finds

    fork        two entries continue the same entry, or a worker has committed that is not the owner any more
    loss        an entry continues no entry that is there: an entry is missing, and with it its outputs and table writes
    duplicate   an entry covers inputs again that another one has covered, without a reset
    damage      a record that is not a valid entry

It follows a journal from an entry before the fault, and does not stop at the first break. (A worker does: it refuses
such a journal.) It skips entries that were truncated before they could be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.core.entry_body import reset_partitions
from pipeline.core.envelope import EnvelopeError
from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import EntryKind, JournalEntry, assemble, begins_entry, chain_after
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.drills.report import Effect, RecoveryPoint
from pipeline.errors import FatalTaskError

__all__ = ["Judge", "SeenEntry"]

_REMEMBERED = 512  # entries of a task that a fork may begin at
_OWNED = {EntryKind.COMMIT, EntryKind.CHECKPOINT, EntryKind.RELEASE}


class SeenEntry(NamedTuple):
    """What the judge keeps of an entry."""

    kind: EntryKind
    seq: int
    owner: str
    positions: Mapping[str, int]
    wall_ms: int
    offset: int
    chain: bytes
    reset: Sequence[int] | None = None  # of a reset: the partitions whose rows it deletes; None: all


@dataclass
class _Task:
    """One journal. `known`: the last entries, by chain value. `last`: the last one in the topic."""

    task: TaskId
    next_offset: int
    inputs: TaskInputs
    last: SeenEntry | None = None
    known: dict[bytes, SeenEntry] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)  # by input, the highest position of any entry
    repeating: set[str] = field(default_factory=set)  # inputs whose first duplicate was reported
    continued: set[bytes] = field(default_factory=set)  # chain values that an entry continues
    strangers: set[str] = field(default_factory=set)  # owners that committed after they had lost the task
    parts: list[tuple[int, bytes]] = field(default_factory=list)
    owner: str = ""
    entries: int = 0
    offsets: int = 0


class Judge:
    """Follows journals. `add` new records in order; `verdict` at any time."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, _Task] = {}
        self.effects: list[Effect] = []

    def begin(self, task: TaskId, before: JournalEntry | None, offset: int, tasks: int) -> None:
        """Follow a task from `offset` on.

        `before`: the last entry below it; None if the journal is empty. `tasks`: how many its group has.
        """
        state = _Task(task, offset, TaskInputs(task.number, tasks))
        if before is not None:
            self._remember(state, _seen(before))
            state.covered = dict(before.entry.positions)
            state.owner = before.entry.owner
        self._tasks[task] = state

    def next_offset(self, task: TaskId) -> int:
        """Where to read on."""
        return self._tasks[task].next_offset

    def add(self, task: TaskId, chunks: Sequence[tuple[int, bytes]], next_offset: int) -> list[SeenEntry]:
        """Judge the committed records up to `next_offset`. Returns the entries that are complete."""
        state = self._tasks[task]
        found = []
        for offset, chunk in chunks:
            if begins_entry(chunk) and state.parts:
                found += self._entry(state)
            state.parts.append((offset, chunk))
        # A transaction contains complete entries, and the end is that of a transaction.
        if state.parts:
            found += self._entry(state)
        state.next_offset = next_offset
        return found

    def resume(self, task: TaskId, after: JournalEntry) -> None:
        """Continue behind an entry, because those before it were deleted unread. They are not judged."""
        state = self._tasks[task]
        state.parts, state.next_offset = [], after.next_offset
        state.owner = after.entry.owner
        self._remember(state, _seen(after))
        for name, position in after.entry.positions.items():
            state.covered[name] = max(position, state.covered.get(name, position))

    def has(self, task: TaskId, chain: bytes) -> bool:
        """Whether the entry with this chain value is in the journal, and one of the last that were read."""
        return chain in self._tasks[task].known

    def miss(self, task: TaskId, applied: AppliedPosition, worker: str) -> None:
        """Report an entry that a worker has applied, and that the journal does not have."""
        state = self._tasks[task]
        last = state.last
        topic, offset = "", None
        for name, end in applied.positions.items():
            start = last.positions.get(name, 0) if last is not None else 0
            if offset is None and end > start:
                topic, offset = state.inputs.label(name, applied.positions), start
        text = (
            f"worker {worker} has applied entry {applied.seq}, which was confirmed and is not in the journal"
        )
        self._effect("loss", state, topic, offset, applied.offset, text)

    def verdict(self) -> RecoveryPoint:
        """What the journals prove so far."""
        kinds = {effect.kind for effect in self.effects}
        return RecoveryPoint(
            entries=sum(state.entries for state in self._tasks.values()),
            input_offsets=sum(state.offsets for state in self._tasks.values()),
            exactly_once=not kinds & {"loss", "duplicate", "fork"},
            chain_intact=not kinds & {"fork", "loss", "damage"},
            effects=list(self.effects),
        )

    def _entry(self, state: _Task) -> list[SeenEntry]:
        parts, state.parts = state.parts, []
        where = str(state.task.journal)
        try:
            (entry,) = assemble(parts, where)
        except FatalTaskError as error:
            self._effect("damage", state, "", None, parts[0][0], error.message)
            return []
        seen = _seen(entry)
        parent = self._parent(state, seen, [chunk for _, chunk in parts])
        state.entries += 1
        if seen.kind is EntryKind.ACQUIRE:
            state.owner = seen.owner
            state.strangers.discard(seen.owner)
        elif seen.kind in _OWNED and state.owner and seen.owner not in {state.owner, *state.strangers}:
            state.strangers.add(seen.owner)
            self._effect(
                "fork", state, *_first(state, parent, seen), seen.offset,
                f"worker {seen.owner} has committed entry {seen.seq} after worker {state.owner} acquired the task",
            )  # fmt: skip
        if parent is not None:
            self._cover(state, parent, seen)
        self._remember(state, seen)
        return [seen]

    def _parent(self, state: _Task, seen: SeenEntry, chunks: Sequence[bytes]) -> SeenEntry | None:
        """The entry that this one continues; None if it is not there, or this is the first one that is followed."""
        if not state.known:
            return None
        try:
            for parent in (*([state.last] if state.last else []), *reversed(state.known.values())):
                if parent.seq + 1 == seen.seq and chain_after(parent.chain, chunks) == seen.chain:
                    self._check_fork(state, parent, seen)
                    return parent
        except EnvelopeError:  # `assemble` has accepted these chunks
            return None
        last = state.last
        if last is not None:
            missing = f"entry {seen.seq} follows entry {last.seq} in the topic and does not continue it"
            what = "an entry is missing" if seen.seq > last.seq else "its predecessor is missing"
            self._effect("loss", state, *_first(state, last, seen), seen.offset, f"{missing}: {what}")
        return None

    def _check_fork(self, state: _Task, parent: SeenEntry, seen: SeenEntry) -> None:
        last = state.last
        if last is None or parent.chain not in state.continued:
            state.continued.add(parent.chain)
            return
        topic, offset = _first(state, parent, seen)
        text = f"entry {seen.seq} of worker {seen.owner} continues entry {parent.seq}, which another entry continues"
        self._effect("fork", state, topic, offset, seen.offset, text)

    def _cover(self, state: _Task, parent: SeenEntry, seen: SeenEntry) -> None:
        """Compare the interval of an entry with what other entries have covered."""
        reset = _reset_inputs(state, seen)
        for name in reset:
            state.covered[name] = seen.positions[name]
            state.repeating.discard(name)
        for name, start in parent.positions.items():
            if name in reset:
                continue
            end = seen.positions.get(name, start)
            covered = state.covered.get(name, start)
            if end < start and seen.kind is EntryKind.ACQUIRE:
                state.covered[name] = end  # the topic was replaced by another one of this name
            elif end < start or (start < covered and end > start):
                self._repeat(state, name, min(start, end), seen)
            state.offsets += max(0, end - max(start, covered))
            state.covered[name] = max(end, state.covered.get(name, end))

    def _repeat(self, state: _Task, name: str, offset: int, seen: SeenEntry) -> None:
        """Report the first duplicate of an input since the start, or since a reset."""
        if name not in state.repeating:
            state.repeating.add(name)
            end = state.covered.get(name, offset)
            text = f"inputs from {offset} on were committed by an earlier entry, too, up to {max(offset, end - 1)}"
            self._effect(
                "duplicate", state, state.inputs.label(name, seen.positions), offset, seen.offset, text
            )

    def _effect(
        self,
        kind: Literal["loss", "duplicate", "fork", "damage", "state"],
        state: _Task,
        topic: str,
        offset: int | None,
        at: int,
        text: str,
    ) -> None:
        task = f"{state.task.group}/{state.task.number}"
        self.effects.append(
            Effect(kind=kind, task=task, topic=topic, offset=offset, journal_offset=at, text=text)
        )

    def _remember(self, state: _Task, seen: SeenEntry) -> None:
        state.known[seen.chain] = state.last = seen
        while len(state.known) > _REMEMBERED:
            oldest = next(iter(state.known))
            del state.known[oldest]
            state.continued.discard(oldest)


def _reset_inputs(state: _Task, seen: SeenEntry) -> set[str]:
    """The inputs whose positions an entry sets, whatever was covered before."""
    if seen.kind is not EntryKind.RESET:
        return set()
    return {
        name
        for name in seen.positions
        if seen.reset is None or state.inputs.place(name).partition in seen.reset
    }


def _first(state: _Task, before: SeenEntry | None, seen: SeenEntry) -> tuple[str, int | None]:
    """The input and its first offset that an entry covers beyond `before`."""
    if before is None:
        return "", None
    for name, end in seen.positions.items():
        start = before.positions.get(name, 0)
        if end != start:
            return state.inputs.label(name, seen.positions), min(start, end)
    for name, at in before.positions.items():
        return state.inputs.label(name, before.positions), at
    return "", None


def _seen(found: JournalEntry) -> SeenEntry:
    entry = found.entry
    return SeenEntry(
        entry.kind,
        entry.seq,
        entry.owner,
        dict(entry.positions),
        entry.wall_ms,
        found.offset,
        found.chain,
        reset_partitions(entry) if entry.kind is EntryKind.RESET else None,
    )
