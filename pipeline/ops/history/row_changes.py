"""The changes of the rows with one key of a table, read from a task's journal: `row_histories`.

Each entry has the new value of every row that its commit wrote. So the journal alone gives each change with the value
before and after it, back to the journal's first entry. Reads only, as `pipeline.ops.history.past_states` describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.entry_body import entry_partitions, reset_partitions
from pipeline.core.expiry import EXPIRING_SCHEMA, row_value
from pipeline.core.inputs import TaskInputs, row_prefix
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.ops.history.past_states import journal_end, with_reader
from pipeline.ops.history.record_commits import inputs_in
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import read_entries, without_delta
from pipeline.runtime.environment import Environment

__all__ = ["RowChange", "RowHistory", "StoredValue", "row_histories"]


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A row's bytes; None if the row did not exist. `schema`: the table's fingerprint then; None if it is unknown."""

    data: bytes | None
    schema: str | None = None

    def same_value(self, other: StoredValue) -> bool:
        """Whether the value is the same. The times of a row with a time-to-live are no part of it."""
        if self.data is None or other.data is None:
            return self.data is other.data
        return _value(self.data, self.schema) == _value(other.data, other.schema)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One entry that changed the row.

    `entry`: without its table writes. `old`: None if the journal no longer has the entry that wrote the value before.
    `before`: the input positions before the entry, by input name; None if the journal begins with it.
    """

    entry: JournalEntry
    old: StoredValue | None
    new: StoredValue
    before: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class RowHistory:
    """The changes of a row in one partition, oldest first. `total`: their number, if only the newest are kept.

    `partitions`: all partitions of the task. `inputs`: the names of its inputs. `first`: the journal's first entry,
    without its table writes; None if the journal has none. The history is complete if it is a genesis entry.
    """

    task: TaskId
    partition: int
    partitions: Sequence[int]
    inputs: TaskInputs
    changes: tuple[RowChange, ...]
    total: int
    first: JournalEntry | None

    @property
    def complete(self) -> bool:
        return self.first is None or self.first.entry.kind is EntryKind.GENESIS

    def input_name(self, topic: str) -> str:
        """The name of the input of a topic that the row's partition has. Positions have it."""
        return self.inputs.name(TopicPartition(topic, self.partition))

    def label(self, topic: str) -> str:
        """A topic for people: with the partition, if the task has several."""
        return str(TopicPartition(topic, self.partition)) if len(self.partitions) > 1 else topic

    def moved(self, change: RowChange) -> dict[str, tuple[int, int]]:
        """The first input offset of the commit and the next one after it, for each topic that it moved in.

        Only the partition of the row counts: no handler writes the rows of another one.
        """
        before, found = change.before if change.before is not None else {}, {}
        for name, after in change.entry.entry.positions.items():
            place = self.inputs.place(name)
            if place.partition == self.partition and name in before and after > before[name]:
                found[place.topic] = before[name], after
        return found


def row_histories(
    task: TaskId,
    table: str,
    key: bytes,
    environment: Environment,
    newest: int | None = None,
    only: int | None = None,
) -> list[RowHistory]:
    """Every change of the rows with a key that the journal of a task has: a history for each of its partitions.

    A commit that wrote the value that the row already had is not a change.

    Args:
        task: The task. Its worker may be running.
        table: The table's name.
        key: The key as format 1 has it: the table's prefix and the encoded key.
        environment: For Kafka.
        newest: How many changes of each row to keep; None for all.
        only: The only partition to return; None for all.

    Returns:
        The histories in the order of the partitions, with the changes oldest first.

    Raises:
        FatalTaskError: The journal is damaged.
        UnreachableError: Kafka does not answer.
        RetriableError: The journal was truncated, or read from a stale leader, at each of several attempts.
    """
    inputs = inputs_in(task, environment.cluster)
    read = with_reader(environment, lambda reader: _read(task, inputs, table, key, reader, newest))
    return [found for found in read if only in {None, found.partition}]


def _value(data: bytes, schema: str | None) -> bytes:
    return row_value(data) if (schema or "").startswith(EXPIRING_SCHEMA) else data


class _Row:
    """One row while the journal is read. `current`: None while its value is unknown."""

    def __init__(self, newest: int | None, current: StoredValue | None) -> None:
        self.changes: deque[RowChange] = deque(maxlen=newest)
        self.total = 0
        self.current = current

    def apply(
        self,
        entry: JournalEntry,
        new: StoredValue | None,
        before: Mapping[str, int] | None,
    ) -> None:
        """`new`: the value after the entry; None if the entry does not decide it."""
        if new is None:
            return
        if self.current is None or not new.same_value(self.current):
            self.changes.append(RowChange(without_delta(entry), self.current, new, before))
            self.total += 1
        self.current = new


def _read(
    task: TaskId, inputs: TaskInputs, table: str, key: bytes, reader: JournalReader, newest: int | None
) -> list[RowHistory]:
    end = journal_end(task, reader)
    start = reader.bounds(task.journal).start
    rows: dict[int, _Row] = {}
    first: JournalEntry | None = None
    before: Mapping[str, int] | None = None
    schema: str | None = None
    for entry in read_entries(task, reader, start, end, None):
        body = entry.entry
        if first is None:
            first = without_delta(entry)
            known = StoredValue(None) if body.kind is EntryKind.GENESIS else None
            rows = {number: _Row(newest, known) for number in entry_partitions(body, inputs)}
        if body.identity is not None:
            schema = body.identity.tables.get(table)
        for number, row in rows.items():
            full_key = key if entry.version == 1 else row_prefix(number) + key
            row.apply(entry, _after(entry, number, full_key, schema, row.current), before)
        before = body.positions
    numbers = list(rows)
    return [
        RowHistory(task, number, numbers, inputs, tuple(row.changes), row.total, first)
        for number, row in rows.items()
    ]


def _after(
    entry: JournalEntry, number: int, full_key: bytes, schema: str | None, current: StoredValue | None
) -> StoredValue | None:
    """The row of a partition after an entry that decides it; None for any other entry."""
    delta = entry.entry.delta
    if full_key in delta:
        return StoredValue(delta[full_key], schema)
    if entry.entry.kind is EntryKind.RESET and current is not None and current.data is not None:
        reset = reset_partitions(entry.entry)
        return StoredValue(None, schema) if reset is None or number in reset else None
    return None
