"""What users declare about a sink: `Postgres`, `Sqlite`, `Delete`. Declarations only; nothing connects.

A mistake raises ConfigError when it is declared. A DSN may hold a password, so none is ever part of a message: a sink
is named by its `place`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from pipeline.api.event import Event
from pipeline.errors import ConfigError
from pipeline.extras import install_hint

__all__ = ["Delete", "Mode", "Postgres", "Row", "Sink", "Sqlite", "Write"]

K = TypeVar("K")
V = TypeVar("V")

Mode = Literal["upsert", "insert", "append"]


class Delete:
    """What a `row` function returns to delete a row: `Delete({"id": event.key})`. Its columns are the sink's key."""

    __slots__ = ("key",)

    def __init__(self, key: Mapping[str, object]) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"Delete({dict(self.key)!r})"


Row = Mapping[str, object] | Delete | None
Write = Callable[[Any, Sequence[Event[K, V]]], None]


class Sink(ABC, Generic[K, V]):
    """Where the rows of a topic's records go. Made by `Postgres` and `Sqlite`.

    table: a name, or SCHEMA.NAME, spelled as the database spells it.
    mode: `upsert` replaces the row of the same key; `insert` leaves a row that is there as it is; `append` inserts,
    and a row that is there already is the record's error.
    row: makes a record's row, column by column; None for a record that has none; `Delete` (upsert only) to delete
    one. Every row of a sink has the same columns.
    key: the columns that tell rows apart; default: the table's primary key.
    write: instead of a table: a function of a cursor and some events that writes whatever it wants, in our
    transaction. It must not end the transaction. It may be called again with the same events, or a part of them, as
    long as nothing of it was committed.
    """

    engine: str
    needs: str

    def __init__(
        self,
        table: str | None,
        *,
        mode: Mode,
        row: Callable[[Event[K, V]], Row] | None,
        key: Sequence[str],
        write: Write[K, V] | None,
    ) -> None:
        self.table = table
        self.mode = mode
        self.row = row
        self.key = tuple([key] if isinstance(key, str) else key)
        self.write = write
        self._check()
        if find_spec(self.needs) is None:
            raise ConfigError(f"{self} needs {self.needs}, which is not installed", hint=self.install)

    @property
    @abstractmethod
    def place(self) -> str:
        """Names the database to people. Never a secret."""

    @property
    @abstractmethod
    def install(self) -> str:
        """How to get what `needs` names."""

    @property
    @abstractmethod
    def address(self) -> str:
        """How to reach it; equal for sinks that share a transaction. May hold a secret."""

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.place}{f' table {self.table}' if self.table else ''}"

    def _check(self) -> None:
        if (self.table is None) == (self.write is None):
            raise ConfigError(
                f"{self}: give it either a table or a write function",
                hint="table='totals', row=lambda event: {...}; or write=function(cursor, events)",
            )
        if self.write is not None and self.row is not None:
            raise ConfigError(f"{self}: row= belongs to a table; a write function makes its own SQL")
        if self.table is not None and not callable(self.row):
            raise ConfigError(
                f"{self}: row is {self.row!r}; it must be a function of an event",
                hint='row=lambda event: {"id": event.key, "total": event.value}',
            )
        if self.write is not None and not callable(self.write):
            raise ConfigError(
                f"{self}: write is {self.write!r}; it must be a function of a cursor and events"
            )
        if self.mode not in get_args(Mode):
            raise ConfigError(f"{self}: mode is {self.mode!r}; it must be {', '.join(get_args(Mode))}")
        if self.table is not None and not all(self.table.split(".")):
            raise ConfigError(f"{self}: {self.table!r} is no table name", hint="write TABLE or SCHEMA.TABLE")


class Postgres(Sink[K, V]):
    """Rows in a PostgreSQL database.

    dsn: a connection string or URI, as libpq takes it. Take it from the environment; it may hold a password.
    """

    engine = "postgres"
    needs = "psycopg"

    def __init__(
        self,
        dsn: str,
        table: str | None = None,
        *,
        mode: Mode = "upsert",
        row: Callable[[Event[K, V]], Row] | None = None,
        key: Sequence[str] = (),
        write: Write[K, V] | None = None,
    ) -> None:
        if not isinstance(dsn, str) or not dsn.strip():
            raise ConfigError("Postgres: the DSN is empty", hint="is the variable that it comes from set?")
        self.dsn = dsn
        super().__init__(table, mode=mode, row=row, key=key, write=write)

    @property
    def place(self) -> str:
        host, database = _host_and_database(self.dsn)
        return f"postgresql://{host}/{database}"

    @property
    def install(self) -> str:
        return install_hint("postgres")

    @property
    def address(self) -> str:
        return self.dsn


class Sqlite(Sink[K, V]):
    """Rows in a SQLite file, which is created when it is missing. For one machine: its lock is the file's."""

    engine = "sqlite"
    needs = "sqlite3"

    def __init__(
        self,
        path: str | Path,
        table: str | None = None,
        *,
        mode: Mode = "upsert",
        row: Callable[[Event[K, V]], Row] | None = None,
        key: Sequence[str] = (),
        write: Write[K, V] | None = None,
    ) -> None:
        if str(path) in {"", ":memory:"}:
            raise ConfigError(
                "Sqlite: the database must be a file: positions have to outlive the process",
                hint="give it a path",
            )
        self.path = Path(path)
        super().__init__(table, mode=mode, row=row, key=key, write=write)

    @property
    def install(self) -> str:
        return "install a Python that has the sqlite3 module"

    @property
    def place(self) -> str:
        return f"sqlite:{self.path}"

    @property
    def address(self) -> str:
        return str(self.path.absolute())


def _host_and_database(dsn: str) -> tuple[str, str]:
    """For people, and only what cannot be a part of a password; an odd DSN gives less."""
    if "://" not in dsn:
        words = dict(word.partition("=")[::2] for word in dsn.split() if "=" in word)
        quoted = any("'" in word or "\\" in word for word in dsn.split())
        return ("", "") if quoted else (words.get("host", ""), words.get("dbname", ""))
    found = _URI.fullmatch(dsn)
    return (found["host"], found["database"] or "") if found is not None else ("", "")


# One that is written as it should be: with two @, or a / in a password, what looks like the host may be a secret.
_URI = re.compile(
    r"postgres(ql)?://([^@:/?#]*(:[^@:/?#]*)?@)?(?P<host>[^@/?#]*)(/(?P<database>[^@/?#]*))?(\?[^@#]*)?"
)
