"""SQLite without a file, for tests of apps: `SqliteInMemory`, opened by `pipeline.testing.DriverDatabases`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from secrets import token_hex
from typing import Any
from weakref import finalize

from pipeline.databases.sql import quoted_column
from pipeline.databases.sqlite import SqliteSession
from pipeline.ports.databases import RowsWrite, TableShape

__all__ = ["SqliteInMemory"]


class SqliteInMemory:
    """A database that exists as long as this object. Its sessions are separate connections, as with a file."""

    def __init__(self) -> None:
        self._uri = f"file:pipeline-{token_hex(8)}?mode=memory&cache=shared"
        self._connection = _connected(self._uri)
        self._made: set[str] = set()
        finalize(self, self._connection.close)

    def open(self, place: str) -> SqliteSession:
        """Open a connection."""
        return _MemorySession(_connected(self._uri), place, self._made)

    def sql(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement in its own transaction and return its rows."""
        return self._connection.execute(statement, parameters).fetchall()

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The committed rows of a table; empty if it does not exist."""
        name = quoted_column(table)
        if not self._connection.execute(f"PRAGMA main.table_info({name})").fetchall():
            return []
        found = self._connection.execute(f"SELECT * FROM main.{name}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


class _MemorySession(SqliteSession):
    """Creates a missing table with the first row, and missing columns, without types, with the rows that have them.

    `made`: the names of the tables that it created. Tables that a test created are checked like those of a file.
    """

    def __init__(self, connection: sqlite3.Connection, place: str, made: set[str]) -> None:
        self._connection = connection
        self._place = place
        self._made = made

    def shape(self, table: str) -> TableShape | None:
        name = f"main.{quoted_column(table)}"
        found = None if name in self._made else super().shape(table)
        return found or TableShape(None, (), None, name=name)

    def write_rows(self, write: RowsWrite) -> None:
        name = write.target.table
        known = [row[1] for row in self.query(f"PRAGMA main.table_info({name.removeprefix('main.')})")]
        if write.columns and not known:
            unique = f", UNIQUE ({self.listed(write.target.key)})" if write.target.key else ""
            self.execute(f"CREATE TABLE {name} ({self.listed(write.columns)}{unique})")
            self._made.add(name)
        elif name in self._made:
            for column in write.columns:
                if column not in known:
                    self.execute(f"ALTER TABLE {name} ADD COLUMN {quoted_column(column)}")
        if write.columns or known:
            super().write_rows(write)


def _connected(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
