"""Journals of one task for the judge: entries with the chain that a test chooses."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, assemble, encode_entry
from pipeline.core.names import TaskId
from pipeline.drills.judge import Judge

__all__ = ["TASK", "TOPIC", "Journal", "Written"]

TASK = TaskId("shop", "main", 3)
TOPIC = "orders"


class Written(NamedTuple):
    """An entry that was written: what another one must continue."""

    seq: int
    chain: bytes


class Journal:
    """Writes entries, and gives them to a judge that has followed the journal from its first entry on."""

    def __init__(self) -> None:
        self.judge = Judge()
        self._offset = 0
        self.head = self._write(EntryKind.GENESIS, Written(0, NO_CHAIN), 0, "", follow=False)
        self.acquire("a")

    def acquire(self, owner: str, position: int = 0) -> Written:
        """A worker acquires the task."""
        self.head = self._write(EntryKind.ACQUIRE, self.head, position, owner)
        return self.head

    def commit(self, position: int, owner: str = "a", after: Written | None = None) -> Written:
        """A commit of the inputs below `position`, after another entry than the last one if one is given."""
        self.head = self._write(EntryKind.COMMIT, after if after is not None else self.head, position, owner)
        return self.head

    def reset(self, position: int) -> Written:
        """A reset."""
        self.head = self._write(EntryKind.RESET, self.head, position, "")
        return self.head

    def foreign_record(self) -> None:
        """A record that is not a chunk of an entry."""
        self.judge.add(
            TASK, [(self._offset, b"not an entry of a journal, however long it may be")], self._offset + 2
        )
        self._offset += 2

    def _write(
        self, kind: EntryKind, after: Written, position: int, owner: str, *, follow: bool = True
    ) -> Written:
        entry = Entry(
            kind, after.seq + 1, owner, b"%d" % self._offset, {TOPIC: position}, wall_ms=self._offset
        )
        chunks, chain = encode_entry(entry, after.chain, 40)  # several chunks
        placed = [(self._offset + number, chunk) for number, chunk in enumerate(chunks)]
        self._offset += len(chunks) + 1
        if follow:
            self.judge.add(TASK, placed, self._offset)
        else:
            (first,) = assemble(placed, str(TASK))
            self.judge.begin(TASK, first, self._offset)
        return Written(entry.seq, chain)
