"""The databases of a `TestDriver`'s sinks: `DriverDatabases`, in memory or those that the sinks name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any
from weakref import finalize

from pipeline.api.sinks import Postgres, Sink
from pipeline.databases.opening import RealDatabases
from pipeline.errors import ConfigError
from pipeline.ports.databases import SinkSession
from pipeline.testing.memory_database import MemoryDatabase, MemorySession

__all__ = ["DriverDatabases"]


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
            self._sqlite[sink.address] = import_module("pipeline.databases.sqlite_memory").SqliteInMemory()
        return self._sqlite[sink.address]


def _close(sessions: list[SinkSession]) -> None:
    while sessions:
        sessions.pop().close()
