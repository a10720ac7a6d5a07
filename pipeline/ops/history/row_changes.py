"""The changes of one row of a table, read from a task's journal: `row_history`.

Each entry has the new value of every row that its commit wrote. So the journal alone gives each change with the value
before and after it, back to the journal's first entry. Reads only, as `pipeline.ops.history.past_states` describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId
from pipeline.ops.history.past_states import journal_end, with_reader
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import read_entries, without_delta
from pipeline.runtime.environment import Environment

__all__ = ["RowChange", "RowHistory", "StoredValue", "row_history"]


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A row's bytes; None if the row did not exist. `schema`: the table's fingerprint then; None if it is unknown."""

    data: bytes | None
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class RowChange:
    """One entry that changed the row.

    `entry`: without its table writes. `old`: None if the journal no longer has the entry that wrote the value before.
    `before`: the input positions before the entry; None if the journal begins with it.
    """

    entry: JournalEntry
    old: StoredValue | None
    new: StoredValue
    before: Mapping[str, int] | None

    @property
    def inputs(self) -> dict[str, tuple[int, int]]:
        """The first input offset of the commit and the next one after it, for each topic that it moved in."""
        before = self.before if self.before is not None else {}
        return {
            topic: (before[topic], after)
            for topic, after in self.entry.entry.positions.items()
            if topic in before and after > before[topic]
        }


@dataclass(frozen=True, slots=True)
class RowHistory:
    """The changes of a row in one task, oldest first. `total`: their number, if only the newest are kept.

    `first`: the journal's first entry, without its table writes; None if the journal has none. The history is complete
    if it is a genesis entry.
    """

    task: TaskId
    changes: tuple[RowChange, ...]
    total: int
    first: JournalEntry | None

    @property
    def complete(self) -> bool:
        return self.first is None or self.first.entry.kind is EntryKind.GENESIS


def row_history(
    task: TaskId, table: str, full_key: bytes, environment: Environment, newest: int | None = None
) -> RowHistory:
    """Every change of a row that the journal of a task has.

    A commit that wrote the value that the row already had is not a change.

    Args:
        task: The task. Its worker may be running.
        table: The table's name.
        full_key: The key as journal and state have it: the table's prefix and the encoded key.
        environment: For Kafka.
        newest: How many changes to keep; None for all.

    Returns:
        The changes, oldest first.

    Raises:
        FatalTaskError: The journal is damaged.
        UnreachableError: Kafka does not answer.
        RetriableError: The journal was truncated, or read from a stale leader, at each of several attempts.
    """
    return with_reader(environment, lambda reader: _read(task, table, full_key, reader, newest))


def _read(task: TaskId, table: str, full_key: bytes, reader: JournalReader, newest: int | None) -> RowHistory:
    end = journal_end(task, reader)
    start = reader.bounds(task.journal).start
    found: deque[RowChange] = deque(maxlen=newest)
    total = 0
    first: JournalEntry | None = None
    previous: JournalEntry | None = None
    current: StoredValue | None = None  # None while it is unknown
    schema: str | None = None
    for entry in read_entries(task, reader, start, end, None):
        body = entry.entry
        if first is None:
            first = without_delta(entry)
            current = StoredValue(None) if body.kind is EntryKind.GENESIS else None
        if body.identity is not None:
            schema = body.identity.tables.get(table)
        new = _after(entry, full_key, schema, current)
        if new is not None and (current is None or new.data != current.data):
            before = previous.entry.positions if previous is not None else None
            found.append(RowChange(without_delta(entry), current, new, before))
            total += 1
        current = new if new is not None else current
        previous = entry
    return RowHistory(task, tuple(found), total, first)


def _after(
    entry: JournalEntry, full_key: bytes, schema: str | None, current: StoredValue | None
) -> StoredValue | None:
    """The row after an entry that decides it; None for any other entry."""
    delta = entry.entry.delta
    if full_key in delta:
        return StoredValue(delta[full_key], schema)
    if entry.entry.kind is EntryKind.RESET and current is not None and current.data is not None:
        return StoredValue(None, schema)
    return None
