"""The port to a database of a sink: `Databases` opens sessions, `SinkSession` is one connection.

The same contract tests (tests/sinks/test_session_contract.py) run on the fake, SQLite and PostgreSQL.
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
    """A table that exists in the database. `columns`: None if any column may be written.

    `uniques`: the sets of columns with a unique constraint, including the primary key; None if any set is accepted.
    `lacks`: the privileges that the role does not have. `name`: the table's name in statements, independent of the
    search path.
    """

    columns: tuple[str, ...] | None
    primary: tuple[str, ...]
    uniques: Collection[frozenset[str]] | None
    lacks: Sequence[str] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A table to write to. `table`: its name in statements. `key`: the columns that identify a row; empty for `append`.

    `facts`: None if they are unknown.
    """

    table: str
    mode: Mode
    key: tuple[str, ...]
    facts: TableFacts | None = None


@dataclass(frozen=True, slots=True)
class RowsWrite:
    """Rows and deletions (`upsert` only) of one table, in the order of their records, which must be kept."""

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
    """One connection. One thread at a time. It can no longer be used after SinkUnreachableError.

    Every call may raise:
        SinkUnreachableError: nothing of the transaction was or will be committed. `commit` raises UnknownOutcomeError
            instead.
        RetriableError: roll the transaction back and run it again, for example after a deadlock or a lock time-out.
        ConfigError: a privilege, a table or a column is missing.
    """

    def prepare(self) -> None:
        """Create the table of positions if it is missing. Raises ConfigError if other clients share the session."""
        ...

    def shape(self, table: str) -> TableShape | None:
        """The table's shape; None if the table does not exist."""
        ...

    def facts(self, name: str, key: Sequence[str]) -> TableFacts | None:
        """The facts that decide whether changes can be written as sets; None if unknown. `name`: `TableShape.name`."""
        ...

    def ddl(self, table: str, key: Sequence[str]) -> str:
        """Statements that add the unique constraint, for the text of an error."""
        ...

    def rows(self, group: GroupId) -> list[PositionRow]:
        """All positions of a group. Outside of a transaction."""
        ...

    def elsewhere(self, group: GroupId, cluster_id: str) -> list[str]:
        """The other tables of positions in the database that contain rows of this group and Kafka cluster."""
        ...

    def begin(self) -> None: ...

    def lock(self, task: TaskId, tasks: int) -> list[PositionRow]:
        """Lock the positions of a task until this transaction ends, and return them. `tasks`: of its group.

        The rows are locked in the order of `PositionRow`, so that two tasks that share rows do not deadlock. Waits for
        an older transaction that holds the lock. If that takes long, ends its session, where the database can.
        """
        ...

    def put(self, group: GroupId, rows: Sequence[PositionRow], *, keep: bool) -> None:
        """Write positions. `keep`: do not change rows that exist."""
        ...

    def move(self, hold: Hold, after: Mapping[str, int]) -> bool:
        """The fence: set each row whose position moves, with our epoch, process and position, to its position `after`.

        Returns False unless exactly one row matched for each of them; the transaction must then not be committed.
        Locks the rows in the order of `PositionRow`.
        """
        ...

    def write(self, writes: Sequence[RowsWrite | OwnWrite]) -> None:
        """Write rows. Raises RejectedRowsError if the database or the user's function refuses them."""
        ...

    def commit(self) -> None:
        """Commit. Raises RejectedRowsError for a deferred constraint, UnknownOutcomeError if it may have succeeded."""
        ...

    def rollback(self) -> None:
        """Roll back. Does nothing outside of a transaction. Never raises."""
        ...

    def close(self) -> None:
        """Close the connection, which rolls an open transaction back. Never raises."""
        ...


class Databases(Protocol):
    """Opens sessions."""

    def open(self, sink: Sink[Any, Any], app: str) -> SinkSession:
        """Connect.

        Raises SinkUnreachableError, or ConfigError for a wrong password or a database that does not exist.
        """
        ...
