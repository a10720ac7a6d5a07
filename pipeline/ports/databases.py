"""What the runtime needs of a database: `SinkSession`, opened by `Databases`.

The same contract tests (tests/contracts) run on the fake, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.api.event import Event
from pipeline.api.sinks import Mode, Sink
from pipeline.core.names import GroupId, TaskId
from pipeline.core.row_sets import Change, TableFacts
from pipeline.core.sink_positions import Hold, PositionRow

__all__ = ["Databases", "OwnWrite", "RowsWrite", "SinkSession", "TableShape", "Target"]


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as the database has it. `columns`: None when any may be written.

    `uniques`: sets of columns that tell rows apart, the primary key among them; None when any do. `lacks`: rights that
    the role misses. `name`: the table as statements name it, whatever their search path.
    """

    columns: tuple[str, ...] | None
    primary: tuple[str, ...]
    uniques: Collection[frozenset[str]] | None
    lacks: Sequence[str] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A table to write to. `table`: as statements name it. `key`: the columns that tell rows apart; empty for `append`.

    `facts`: None when nothing is known.
    """

    table: str
    mode: Mode
    key: tuple[str, ...]
    facts: TableFacts | None = None


@dataclass(frozen=True, slots=True)
class RowsWrite:
    """Rows of one table, and deletions (`upsert` only), in the order of their records: the order decides."""

    target: Target
    columns: tuple[str, ...]
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class OwnWrite:
    """The user's own statements: `function(cursor, events)`."""

    function: Callable[[Any, Sequence[Any]], None]
    events: Sequence[Any]

    def __str__(self) -> str:
        name = f"the write function {getattr(self.function, '__qualname__', self.function)}"
        first, last = self.events[0], self.events[-1]
        if not isinstance(first, Event) or not isinstance(last, Event):
            return name
        return f"{name} (records {first.topic}[{first.partition}] offset {first.offset} to {last.offset})"


class SinkSession(Protocol):
    """One connection. One thread at a time; not usable any more after an unreachable database.

    Every call may raise SinkUnreachableError: nothing of the transaction was, or will be, committed; for `commit` that
    is UnknownOutcomeError. RetriableError: the transaction is to be rolled back and made again (a deadlock, a lock
    that another has). ConfigError: a right, a table or a column is missing.
    """

    def prepare(self) -> None:
        """Create the table of positions when it is missing. Raises ConfigError for a session that others share."""
        ...

    def shape(self, table: str) -> TableShape | None:
        """None when there is no such table."""
        ...

    def facts(self, name: str, key: Sequence[str]) -> TableFacts | None:
        """What allows a table's changes to be written as sets. `name`: as `shape` has it. None: nothing is known."""
        ...

    def ddl(self, table: str, key: Sequence[str]) -> str:
        """Statements that make a key unique, for an error's text."""
        ...

    def rows(self, group: GroupId) -> list[PositionRow]:
        """All rows of a group. Outside of a transaction."""
        ...

    def elsewhere(self, group: GroupId, cluster_id: str) -> list[str]:
        """Other tables of positions in the database that have rows of a group in that Kafka cluster."""
        ...

    def begin(self) -> None: ...

    def lock(self, task: TaskId) -> list[PositionRow]:
        """A task's rows, which nobody else changes before this transaction ends.

        An older transaction that holds them is waited for, and ended when it takes long (where the database can).
        """
        ...

    def put(self, group: GroupId, rows: Sequence[PositionRow], *, keep: bool) -> None:
        """Write rows of positions. `keep`: one that is there stays as it is."""
        ...

    def move(self, hold: Hold, after: Mapping[str, int]) -> bool:
        """The fence: for each topic the row with our epoch, process and position goes to its position `after`.

        False unless it was exactly one row for each: then nothing may be committed.
        """
        ...

    def write(self, writes: Sequence[RowsWrite | OwnWrite]) -> None:
        """Raises RejectedRowsError when the database, or the user's function, refuses what is written."""
        ...

    def commit(self) -> None:
        """May also raise RejectedRowsError (a deferred constraint). UnknownOutcomeError: it may have happened."""
        ...

    def rollback(self) -> None:
        """Never raises; nothing happens outside of a transaction."""
        ...

    def close(self) -> None:
        """Never raises. An open transaction is rolled back."""
        ...


class Databases(Protocol):
    """Opens sessions."""

    def open(self, sink: Sink[Any, Any], app: str) -> SinkSession:
        """Connect. Raises SinkUnreachableError, ConfigError (refused: a password, a database that is not there)."""
        ...
