"""Journals of one task for the judge: entries with the chain that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.core.entry_body import partitions_to_reset
from pipeline.core.inputs import input_names
from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, assemble, encode_entry
from pipeline.core.names import TaskId
from pipeline.drills.judge import Judge

__all__ = ["TASK", "TOPIC", "Journal", "Position", "Written"]

TASK = TaskId("shop", "main", 3)
TASKS = 8  # of the group
TOPIC = "orders"

# The position in the task's only partition, or those in several: 3, 11, 19, ...
Position = int | Sequence[int]


class Written(NamedTuple):
    """An entry that was written: what another one must continue."""

    seq: int
    chain: bytes


class Journal:
    """Writes entries, and gives them to a judge that has followed the journal from its first entry on.

    `start`: the positions of its first entry. Several positions are those of several partitions, in format 2.
    """

    def __init__(self, start: Position = 0) -> None:
        self.judge = Judge()
        self._offset = 0
        self.head = self._write(EntryKind.GENESIS, Written(0, NO_CHAIN), start, "", follow=False)
        self.acquire("a", start)

    def acquire(self, owner: str, position: Position = 0) -> Written:
        """A worker acquires the task."""
        self.head = self._write(EntryKind.ACQUIRE, self.head, position, owner)
        return self.head

    def commit(self, position: Position, owner: str = "a", after: Written | None = None) -> Written:
        """A commit of the inputs below `position`, after another entry than the last one if one is given."""
        self.head = self._write(EntryKind.COMMIT, after if after is not None else self.head, position, owner)
        return self.head

    def reset(self, position: Position, *partitions: int) -> Written:
        """A reset, of all partitions if none are given."""
        extra = partitions_to_reset(partitions) if partitions else {}
        self.head = self._write(EntryKind.RESET, self.head, position, "", extra=extra)
        return self.head

    def foreign_record(self) -> None:
        """A record that is not a chunk of an entry."""
        self.judge.add(
            TASK, [(self._offset, b"not an entry of a journal, however long it may be")], self._offset + 2
        )
        self._offset += 2

    def _write(
        self,
        kind: EntryKind,
        after: Written,
        position: Position,
        owner: str,
        *,
        follow: bool = True,
        extra: Mapping[str, bytes] | None = None,
    ) -> Written:
        several = not isinstance(position, int)
        listed = (position,) if isinstance(position, int) else position
        entry = Entry(
            kind,
            after.seq + 1,
            owner,
            b"%d" % self._offset,
            dict(zip(input_names(TOPIC, len(listed)), listed, strict=True)),
            wall_ms=self._offset,
            extra=dict(extra or {}),
        )
        chunks, chain = encode_entry(entry, after.chain, 40, 2 if several else 1)  # several chunks
        placed = [(self._offset + number, chunk) for number, chunk in enumerate(chunks)]
        self._offset += len(chunks) + 1
        if follow:
            self.judge.add(TASK, placed, self._offset)
        else:
            (first,) = assemble(placed, str(TASK))
            self.judge.begin(TASK, first, self._offset, TASKS)
        return Written(entry.seq, chain)
