"""From records to rows: `RowMaker`, checked against its table, and the batches of a sink task. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from pipeline.api.bindings import OnError
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.event import Event
from pipeline.api.sinks import Delete, Sink
from pipeline.core.inputs import TaskInputs
from pipeline.core.names import TopicPartition
from pipeline.core.row_sets import Gone
from pipeline.errors import ConfigError
from pipeline.ports import Record
from pipeline.ports.databases import OwnWrite, RowsWrite, SinkSession, TableShape, Target
from pipeline.runtime.task.handler_errors import only_exceptions

__all__ = [
    "Item",
    "Made",
    "OpenBatch",
    "Outlet",
    "RowMaker",
    "SinkBatch",
    "halves",
    "without",
    "writes_of",
]

# The change that a record makes at one sink: a row, a key to delete, an event, or nothing.
Made = tuple[Any, ...] | Delete | Event[Any, Any] | None


class RowMaker:
    """One sink of a running group. Raises ConfigError if its table does not match.

    Call `make` on the processing thread, `writes` on any thread.
    """

    def __init__(self, sink: Sink[Any, Any], session: SinkSession) -> None:
        self.sink = sink
        self._shape = None
        self._target = Target("", sink.mode, ())
        if sink.table is not None:
            self._shape = _checked(sink, sink.table, session)
            key = sink.key or self._shape.primary
            key = () if sink.mode == "append" else key
            name = self._shape.name or sink.table
            self._target = Target(name, sink.mode, key, session.facts(name, key))
        self._columns: tuple[str, ...] | None = None
        self._names: frozenset[str] = frozenset()

    @property
    def table(self) -> str | None:
        """The table as statements name it; None for a write function, which may write to any table."""
        return None if self.sink.table is None else self._target.table

    def make(self, event: Event[Any, Any]) -> Made:
        """The checked result of the user's `row` for an event. Raises its errors, ValueError, ConfigError."""
        if self.sink.row is None:
            return event
        row = self.sink.row(event)
        if row is None:
            return None
        if isinstance(row, Delete):
            return self._checked_delete(row)
        if self._columns is None:
            self._take_columns(row)
        columns = self._columns or ()
        if row.keys() != self._names:
            raise ValueError(
                f"{self.sink}: a row with columns {', '.join(row)}; the rows before it had {', '.join(columns)}"
            )
        return tuple([row[name] for name in columns])

    def writes(self, made: Sequence[Made]) -> list[RowsWrite | OwnWrite]:
        """The writes of one batch, in the order of its records."""
        wanted = [each for each in made if each is not None]
        if not wanted:
            return []
        if self.sink.write is not None:
            return [OwnWrite(only_exceptions(self.sink.write), wanted)]
        key = self._target.key
        changes = [
            Gone(tuple([each.key[name] for name in key])) if isinstance(each, Delete) else each
            for each in wanted
            if not isinstance(each, Event)
        ]
        return [RowsWrite(self._target, self._columns or (), changes)]

    def _take_columns(self, row: Mapping[str, object]) -> None:
        """Take the columns from the first row."""
        if not isinstance(row, Mapping):
            raise TypeError(
                f"{self.sink}: row returned {type(row).__name__}; it must return a dict, a Delete or None"
            )
        known = self._shape.columns if self._shape is not None else None
        unknown = [name for name in row if known is not None and name not in known]
        if unknown:
            raise ConfigError(
                f"{self.sink}: row returned the column {unknown[0]}, which the table does not have",
                hint=f"its columns: {', '.join(known or ())}",
            )
        missing = [name for name in self._target.key if name not in row]
        if missing and self._target.mode == "upsert":
            raise ConfigError(
                f"{self.sink}: row did not return the column {missing[0]}, which is part of the key"
            )
        if not row:
            raise ValueError(f"{self.sink}: row returned a row without columns")
        self._columns = tuple(row)
        self._names = frozenset(row)

    def _checked_delete(self, delete: Delete) -> Delete:
        if self._target.mode != "upsert":
            raise ConfigError(f"{self.sink}: Delete requires mode='upsert'")
        if delete.key.keys() != set(self._target.key):
            raise ConfigError(
                f"{self.sink}: Delete names {', '.join(delete.key)}; the key is {', '.join(self._target.key)}"
            )
        return delete


def _checked(sink: Sink[Any, Any], table: str, session: SinkSession) -> TableShape:
    """The table of a sink. Raises ConfigError with the necessary change if it does not match."""
    shape = session.shape(table)
    if shape is None:
        raise ConfigError(
            f"{sink}: the database has no such table",
            hint="create it with exactly this name, or correct the name",
        )
    needed = {"append": {"INSERT"}, "insert": {"INSERT", "SELECT"}}.get(
        sink.mode, {"INSERT", "SELECT", "UPDATE"}
    )
    if lacking := [right for right in shape.lacks if right in needed]:
        raise ConfigError(
            f"{sink}: the role lacks the privilege {' and '.join(lacking)} on the table",
            hint=f"GRANT {', '.join(sorted(needed))} ON {table} TO the role (and DELETE, if rows are deleted)",
        )
    unknown = [name for name in sink.key if shape.columns is not None and name not in shape.columns]
    if unknown:
        raise ConfigError(
            f"{sink}: the key column {unknown[0]} is not in the table",
            hint=f"its columns: {', '.join(shape.columns or ())}",
        )
    key = sink.key or shape.primary
    if sink.mode == "upsert" and not key:
        raise ConfigError(
            f"{sink}: mode='upsert' needs a key, and the table has no primary key",
            hint=f"key=('id',) and: {session.ddl(table, ('id',))}; or mode='append'",
        )
    unique = shape.uniques is None or frozenset(key) in shape.uniques
    if sink.mode != "append" and key and not unique:
        raise ConfigError(
            f"{sink}: the key {', '.join(key)} is not unique in the table",
            hint=f"{session.ddl(table, key)}",
        )
    return shape


class Outlet(NamedTuple):
    """One `group.sink(...)` of a running group."""

    topic: DeclaredTopic[Any, Any]
    maker: RowMaker
    on_error: OnError


class Item(NamedTuple):
    """A record and its change at each outlet of its topic, by the outlet's index."""

    record: Record
    made: Sequence[tuple[int, Made]]


class SinkBatch(NamedTuple):
    """Records in order, and the positions after them."""

    items: Sequence[Item]
    after: Mapping[str, int]

    @property
    def rows(self) -> int:
        """The number of its rows, deletions and events."""
        return sum(each is not None for item in self.items for _, each in item.made)


@dataclass(slots=True)
class OpenBatch:
    """The batch that is not sealed yet."""

    items: list[Item] = field(default_factory=list)
    bytes: int = 0
    since_s: float = 0.0


def halves(batch: SinkBatch, before: Mapping[str, int], names: TaskInputs) -> tuple[SinkBatch, SinkBatch]:
    """Two batches that together equal this one. `before`: the positions at the start of the first, by `names`."""
    middle = len(batch.items) // 2
    first = batch.items[:middle]
    after = dict(before)
    after.update({_input_of(item.record, names): item.record.offset() + 1 for item in first})
    return SinkBatch(first, after), SinkBatch(batch.items[middle:], batch.after)


def without(
    batches: Iterable[SinkBatch], partition: int, before: Mapping[str, int], names: TaskInputs
) -> list[SinkBatch]:
    """The batches without the records of a partition, whose positions stay as `before`. Empty ones are left out."""
    found = []
    last = dict(before)
    for batch in batches:
        after = {
            name: before[name] if names.place(name).partition == partition else position
            for name, position in batch.after.items()
        }
        if after != last:
            found.append(SinkBatch([i for i in batch.items if i.record.partition() != partition], after))
        last = after
    return found


def _input_of(record: Record, names: TaskInputs) -> str:
    return names.name(TopicPartition(record.topic(), record.partition() or 0))


def writes_of(batch: SinkBatch, outlets: Sequence[Outlet]) -> list[tuple[int, RowsWrite | OwnWrite]]:
    """The writes, each with its outlet's index: sink by sink, in the order of their declaration.

    If two sinks write to one table, the order of the records is kept instead.
    """
    tables = [outlet.maker.table for outlet in outlets if outlet.maker.table is not None]
    made = [(at, each) for item in batch.items for at, each in item.made if each is not None]
    if len({*tables}) == len(tables):
        made.sort(key=itemgetter(0))  # which keeps the order of each sink's records
    return [
        (at, write)
        for at, run in groupby(made, itemgetter(0))
        for write in outlets[at].maker.writes([each for _, each in run])
    ]
