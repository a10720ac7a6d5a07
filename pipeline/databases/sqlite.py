"""Connections to SQLite: `SqliteSession`. Without a file, for tests of apps: `SqliteInMemory`.

Only this module imports sqlite3.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any
from weakref import finalize

from pipeline.databases.sql import POSITIONS, POSITIONS_DDL, SqlSession, quoted, quoted_column
from pipeline.directories import access, this_user
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    PipelineError,
    RejectedRowsError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
)
from pipeline.ports.databases import OwnWrite, RowsWrite, TableShape

__all__ = ["SqliteInMemory", "SqliteSession"]

BUSY_S = 5.0

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_ABOUT_ROWS = {
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE,
}
_FILE = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SqliteSession(SqlSession):
    """A connection to a file. A transaction locks the whole file, so sessions run one after the other."""

    def __init__(self, path: Path, place: str) -> None:
        self._place = place
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise SinkUnreachableError(
                f"{place} cannot be opened: {error}",
                hint="choose a file in a directory that this user can write",
                refused=True,
            ) from error
        # SQLite opens such a file for reading, and would report it at the first write of each task.
        if path.exists() and not os.access(path, os.W_OK):
            self.close()
            raise SinkUnreachableError(
                f"{place} cannot be written: {self._access()}", hint=self._access_hint(), refused=True
            )

    @property
    def positions(self) -> str:
        return f"main.{POSITIONS}"

    def prepare(self) -> None:
        ddl = POSITIONS_DDL.replace(
            f"CREATE TABLE {POSITIONS}", f"CREATE TABLE IF NOT EXISTS {self.positions}", 1
        )
        self.execute(ddl + " WITHOUT ROWID")

    def shape(self, table: str) -> TableShape | None:
        name = quoted_column(table)
        columns = self.query(f"PRAGMA main.table_info({name})")
        if not columns:
            return None
        primary = tuple(row[1] for row in sorted(columns, key=lambda row: row[5]) if row[5])
        uniques = [frozenset(primary)] if primary else []
        for _, index, unique, _, partial in self.query(f"PRAGMA main.index_list({name})"):
            indexed = [row[2] for row in self.query(f"PRAGMA main.index_info({quoted_column(index)})")]
            if unique and not partial and None not in indexed:
                uniques.append(frozenset(indexed))
        return TableShape(tuple(row[1] for row in columns), primary, uniques, name=f"main.{name}")

    def ddl(self, table: str, key: Sequence[str]) -> str:
        return f"CREATE UNIQUE INDEX ON {quoted(table)} ({self.listed(key)})".replace(
            "INDEX ON", f"INDEX {quoted_column('_'.join([table, *key]))} ON", 1
        )

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        try:
            self.execute("COMMIT")
        except SinkUnreachableError as error:
            raise UnknownOutcomeError(error.message, hint=error.hint) from error

    def rollback(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self._translated():
            return self._connection.execute(sql, tuple(parameters)).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        with self._translated():
            return self._connection.executemany(sql, rows).rowcount

    def own_write(self, write: OwnWrite) -> None:
        """Call the function behind an authorizer that refuses BEGIN, COMMIT and ROLLBACK.

        For some errors, SQLite itself rolls the whole transaction back (`INSERT OR ROLLBACK`). Each later statement
        would then be a transaction of its own. A savepoint detects this: it exists as long as this transaction.
        """
        mark = f"pipeline_{token_hex(8)}"
        refused: list[str] = []

        def authorize(action: int, operation: str | None, *_: Any) -> int:
            if action != sqlite3.SQLITE_TRANSACTION:
                return sqlite3.SQLITE_OK
            refused.append(str(operation))
            return sqlite3.SQLITE_DENY

        self.execute(f"SAVEPOINT {mark}")
        self._connection.set_authorizer(authorize)
        raised: Exception | None = None
        try:
            write.function(self._connection.cursor(), write.events)
        except Exception as error:  # noqa: BLE001 - the transaction is checked before the exception
            raised = error
        self._release(mark, write, raised)
        if raised is not None and refused:
            raise self._ended(write, f"tried to end the transaction ({refused[0]})") from raised
        if isinstance(raised, sqlite3.Error | OverflowError):
            with self._translated():
                raise raised
        if raised is not None:
            raise RejectedRowsError(f"{type(raised).__name__}: {raised}") from raised

    def _release(self, mark: str, write: OwnWrite, raised: Exception | None) -> None:
        """Release the savepoint. Raises FatalTaskError if it no longer exists."""
        try:
            self._connection.set_authorizer(None)
            self._connection.execute(f"RELEASE {mark}")
        except sqlite3.Error as error:
            if getattr(raised, "sqlite_errorcode", 0) & 0xFF in _FILE:
                return  # SQLite rolled back after a disk error
            raise self._ended(write, "has ended the transaction, or closed the connection") from (
                raised or error
            )

    def _ended(self, write: OwnWrite, what: str) -> FatalTaskError:
        return FatalTaskError(
            f"{self._place}: {write} {what}, in which its rows and their positions are written; "
            "the batch was rolled back",
            hint="remove COMMIT, ROLLBACK, BEGIN, OR ROLLBACK, RAISE(ROLLBACK), executescript() and close() from the "
            "function and from its triggers; use savepoints to undo a part. Then restart the worker: it continues from "
            "the last committed position",
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translation(error) from error
        except OverflowError as error:  # an integer of more than 64 bits
            raise RejectedRowsError(str(error)) from error

    def _access(self) -> str:
        path = self._path.absolute()
        return f"{access(path)}, {access(path.parent)}; this process runs as {this_user()}"

    def _access_hint(self) -> str:
        return f"give user {this_user()} write access to the file and its directory, where SQLite creates its journal"

    def _translation(self, error: sqlite3.Error) -> PipelineError:  # noqa: PLR0911 - one reaction for each return
        code = getattr(error, "sqlite_errorcode", None)
        text = f"{self._place}: {error}"
        if code is None:  # a parameter without a type in SQLite, or a closed connection
            return RejectedRowsError(str(error))
        primary = code & 0xFF
        if primary in _ABOUT_ROWS:
            return RejectedRowsError(str(error))
        if primary in _BUSY:
            return RetriableError(text)
        if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            return SinkUnreachableError(f"{text} ({self._access()})", hint=self._access_hint(), refused=True)
        if primary in _FILE:
            return SinkUnreachableError(text, hint="check the disk and the file's directory")
        if primary in _DAMAGED:
            return FatalTaskError(text, hint="restore the file from a backup: its positions come with it")
        return ConfigError(text, hint="compare the sink with the table that the database has")


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
