"""The databases of a `TestDriver`'s sinks: `DriverDatabases` opens them, in memory or those that the sinks name.

`MemoryDatabase` replaces PostgreSQL, with locks, lost connections and unknown outcomes. A transaction sees its own
writes, and locks the rows of positions that it has touched. A table is created when a sink first writes to it. There is
no SQL, so the `write` functions of users cannot run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from weakref import finalize

from pipeline.api.sinks import Postgres, Sink
from pipeline.core.names import GroupId, TaskId
from pipeline.core.row_sets import Gone, TableFacts
from pipeline.core.sink_positions import Hold, PositionRow
from pipeline.databases import RealDatabases
from pipeline.errors import (
    ConfigError,
    InvariantError,
    PipelineError,
    RejectedRowsError,
    SinkUnreachableError,
)
from pipeline.ports.databases import OwnWrite, RowsWrite, SinkSession, TableShape
from pipeline.testing.faults import Faults

__all__ = ["DriverDatabases", "MemoryDatabase", "MemorySession"]

_Place = tuple[str, str, str, int]  # app, group, topic, partition


@dataclass
class _Contents:
    positions: dict[_Place, PositionRow] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def copy(self) -> _Contents:
        return _Contents(dict(self.positions), {name: list(rows) for name, rows in self.tables.items()})


class MemoryDatabase:
    """The data that the sessions of one database share.

    `away`: while it is set, every call raises it. `refuses`: rows with these values are refused. `elsewhere`: other
    tables of positions that have rows of the group. One transaction runs at a time, as in SQLite. Only the sessions use
    `turns`, `holder` and `contents`.
    """

    def __init__(self) -> None:
        self.faults = Faults()
        self.away: PipelineError | None = None
        self.shapes: dict[str, TableShape] = {}
        self.refuses: list[Mapping[str, Any]] = []
        self.elsewhere: list[str] = []
        self.contents = _Contents()
        self.turns = threading.RLock()
        self.holder: MemorySession | None = None

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The committed rows of a table, in the order in which they were first written."""
        return [dict(row) for row in self.contents.tables.get(table, [])]

    def positions(self) -> list[PositionRow]:
        """All committed positions."""
        return sorted(self.contents.positions.values())

    def lose_positions(self) -> None:
        """Delete all positions, like `DELETE FROM pipeline_positions`."""
        self.contents.positions.clear()

    def copy(self) -> _Contents:
        """Make a backup."""
        return self.contents.copy()

    def restore(self, backup: _Contents) -> None:
        """Restore a backup. Every session is ended."""
        self.end_sessions()
        self.contents = backup.copy()

    def end_sessions(self) -> None:
        """End all sessions, as a restart of the server does. The open transaction is rolled back."""
        holder = self.holder
        if holder is not None:
            holder.end()

    def fail_next(self, call: str, error: BaseException, *, after: bool = False) -> None:
        """Let the next call of `open`, `begin`, `lock`, `move`, `write` or `commit` raise.

        `after`: it takes effect before it raises. For a commit with an unknown outcome, raise UnknownOutcomeError, with
        `after` if it was committed.
        """
        self.faults.order(call, error, after=after)


class MemorySession:
    """`ports.SinkSession`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._open: _Contents | None = None
        self._ended = False

    def end(self) -> None:
        """The server ends the session."""
        self._ended = True
        self._leave()

    def prepare(self) -> None:
        self.answer("prepare")

    def shape(self, table: str) -> TableShape | None:
        self.answer("shape")
        return self._database.shapes.get(table, TableShape(None, (), None))

    def elsewhere(self, _group: GroupId, _cluster_id: str) -> list[str]:
        return list(self._database.elsewhere)

    def facts(self, _name: str, _key: Sequence[str]) -> TableFacts | None:
        return None

    def ddl(self, table: str, key: Sequence[str]) -> str:
        return f"ALTER TABLE {table} ADD PRIMARY KEY ({', '.join(key)})"

    def rows(self, group: GroupId) -> list[PositionRow]:
        self.answer("rows")
        return [row for place, row in self._database.contents.positions.items() if place[:2] == tuple(group)]

    def begin(self) -> None:
        with self._database.faults.at("begin"):
            self.answer("begin")
            if self._open is not None:
                raise InvariantError("a transaction begins within another one")
            with self._database.turns:
                holder = self._database.holder
                if holder is not None and holder is not self:
                    # A session that waits too long for a lock is ended. The wait itself takes no time here.
                    holder.end()
                self._database.holder = self
                self._open = self._database.contents.copy()

    def lock(self, task: TaskId, tasks: int) -> list[PositionRow]:
        with self._database.faults.at("lock"):
            found = self._transaction().positions
            return sorted(
                row
                for (app, group, _, partition), row in found.items()
                if (app, group) == task.group_id and partition % tasks == task.number
            )

    def put(self, group: GroupId, rows: Sequence[PositionRow], *, keep: bool) -> None:
        found = self._transaction().positions
        for row in rows:
            place = (*group, row.topic, row.partition)
            if not (keep and place in found):
                found[place] = row

    def move(self, hold: Hold, after: Mapping[str, int]) -> bool:
        with self._database.faults.at("move"):
            found = self._transaction().positions
            for place, position, to in hold.moves(after):
                row = found.get((*hold.task.group_id, *place))
                ours = hold.seq, hold.process, position
                if row is None or (row.epoch, row.process, row.position) != ours:
                    return False
                found[(*hold.task.group_id, *place)] = row._replace(position=to)
            return True

    def write(self, writes: Sequence[RowsWrite | OwnWrite]) -> None:
        with self._database.faults.at("write"):
            tables = self._transaction().tables
            for at, write in enumerate(writes):
                if isinstance(write, OwnWrite):
                    raise ConfigError(
                        "a write function needs a real database",
                        hint="databases=DriverDatabases(connect=True) opens the one that the sink names; or use Sqlite",
                    )
                try:
                    self._write_rows(tables.setdefault(write.target.table, []), write)
                except RejectedRowsError as error:
                    raise RejectedRowsError(error.message, write=at) from error

    def commit(self) -> None:
        with self._database.faults.at("commit"):
            done = self._transaction()
            self._database.contents = done
            self._leave()

    def rollback(self) -> None:
        self._leave()

    def close(self) -> None:
        self._leave()

    def _write_rows(self, table: list[dict[str, Any]], write: RowsWrite) -> None:
        """One change after the other, as a database is asked to."""
        key, rows = write.target.key, dict(enumerate(table))
        places = {_key_of(row, key): at for at, row in rows.items()} if key else {}
        end = len(rows)
        for change in write.changes:
            if isinstance(change, Gone):
                rows.pop(places.pop(_hashed(change.key), -1), None)
                continue
            row = dict(zip(write.columns, change, strict=True))
            if any(refused.items() <= row.items() for refused in self._database.refuses):
                raise RejectedRowsError(f"the row {row} violates a constraint")
            at = places.setdefault(_key_of(row, key), end) if key else end
            if at == end:
                rows[end] = row
                end += 1
            elif write.target.mode == "upsert":
                rows[at] = {**rows[at], **row}
        table[:] = rows.values()

    def answer(self, call: str) -> None:
        """Raise when the database is unreachable, or this session is over."""
        if self._database.away is not None:
            self.end()
            raise self._database.away
        if self._ended:
            raise SinkUnreachableError(f"the session was ended ({call})")

    def _transaction(self) -> _Contents:
        if self._ended and self._database.away is None:
            raise SinkUnreachableError("the session was ended within its transaction")
        self.answer("transaction")
        if self._open is None:
            raise InvariantError("there is no transaction")
        return self._open

    def _leave(self) -> None:
        self._open = None
        if self._database.holder is self:
            self._database.holder = None


def _key_of(row: Mapping[str, Any], key: Sequence[str]) -> tuple[Any, ...]:
    return _hashed(tuple(row[name] for name in key))


def _hashed(key: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        hash(key)
    except TypeError as error:
        raise RejectedRowsError(f"{key} cannot be a key: {error}") from error
    return key


class DriverDatabases:
    """`ports.Databases` for tests: a `MemoryDatabase` for each DSN, an in-memory SQLite for each path.

    Args:
        connect: Connect to the databases and files that the sinks name, instead of memory.
        beside: The databases of another process, which this process shares.
    """

    def __init__(self, *, connect: bool = False, beside: DriverDatabases | None = None) -> None:
        self._real = RealDatabases() if connect else None
        self.memory: dict[str, MemoryDatabase] = beside.memory if beside is not None else {}
        self._sqlite: dict[str, Any] = beside._sqlite if beside is not None else {}  # noqa: SLF001 - of one class
        self._opened: list[SinkSession] = []
        finalize(self, _close, self._opened)

    def open(self, sink: Sink[Any, Any], app: str) -> SinkSession:
        if self._real is not None:
            session = self._real.open(sink, app)
        elif isinstance(sink, Postgres):
            database = self.of(sink)
            with database.faults.at("open"):
                session = MemorySession(database)
                session.answer("open")
        else:
            session = self._sqlite_of(sink).open(sink.database)
        self._opened.append(session)
        return session

    def of(self, sink: Sink[Any, Any]) -> MemoryDatabase:
        """The in-memory database of a PostgreSQL sink."""
        return self.memory.setdefault(sink.address, MemoryDatabase())

    def rows(self, sink: Sink[Any, Any]) -> list[dict[str, Any]]:
        """The committed rows of a sink's table in memory."""
        table = sink.table or ""
        if self._real is not None:
            raise ConfigError(
                f"{sink}: DriverDatabases(connect=True) cannot list rows", hint="query the database itself"
            )
        if isinstance(sink, Postgres):
            return self.of(sink).rows(table)
        found: list[dict[str, Any]] = self._sqlite_of(sink).rows(table)
        return found

    def sql(
        self, sink: Sink[Any, Any], statement: str, parameters: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement in the in-memory database of a SQLite sink. Returns the rows of the result."""
        if self._real is not None or isinstance(sink, Postgres):
            raise ConfigError(
                f"{sink}: only the in-memory database of a Sqlite sink runs SQL",
                hint="for another database, connect to it and query it",
            )
        found: list[tuple[Any, ...]] = self._sqlite_of(sink).sql(statement, parameters)
        return found

    def crash(self) -> None:
        """Close the connections, as the end of a process does."""
        _close(self._opened)

    def _sqlite_of(self, sink: Sink[Any, Any]) -> Any:
        """Imported late: a Python without the module sqlite3 can run apps without SQLite sinks."""
        if sink.address not in self._sqlite:
            self._sqlite[sink.address] = import_module("pipeline.databases.sqlite").SqliteInMemory()
        return self._sqlite[sink.address]


def _close(sessions: list[SinkSession]) -> None:
    while sessions:
        sessions.pop().close()
