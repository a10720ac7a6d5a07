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
from pipeline.installation import install_hint

__all__ = ["Delete", "Mode", "Postgres", "Row", "Sink", "Sqlite", "Write"]

K = TypeVar("K")
V = TypeVar("V")

Mode = Literal["upsert", "insert", "append"]


class Delete:
    """What a `row` function returns to delete a row of a sink with the mode `upsert`.

    Args:
        key: Values by column. The columns are the sink's key.

    Attributes:
        key: As given.

    Example:
        ```python
        Sqlite("orders.db", "orders", row=lambda event: Delete({"id": event.key}) if event.value is None else {...})
        ```
    """

    __slots__ = ("key",)

    def __init__(self, key: Mapping[str, object]) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"Delete({dict(self.key)!r})"


Row = Mapping[str, object] | Delete | None
Write = Callable[[Any, Sequence[Event[K, V]]], None]


class Sink(ABC, Generic[K, V]):
    """A table of a database, or a function that writes to one. Made by `Postgres` and `Sqlite`.

    Attributes:
        table: The name of the table, or None for a sink with a write function.
        mode: `"upsert"`, `"insert"` or `"append"`.
        row: The function that makes a row, or None.
        key: The key columns that were given.
        write: The write function, or None.
        engine: The kind of database: `"postgres"` or `"sqlite"`.
    """

    engine: str
    _needs: str

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
        if find_spec(self._needs) is None:
            raise ConfigError(f"{self} needs {self._needs}, which is not installed", hint=self._install)

    @property
    @abstractmethod
    def database(self) -> str:
        """The name of the database in messages. Never a secret."""

    @property
    @abstractmethod
    def _install(self) -> str:
        """How to get what `needs` names."""

    @property
    @abstractmethod
    def address(self) -> str:
        """How to connect; equal for sinks that can share a transaction. It may be a secret."""

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.database}{f' table {self.table}' if self.table else ''}"

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
            raise ConfigError(
                f"{self}: {self.table!r} is not a table name", hint="write TABLE or SCHEMA.TABLE"
            )


class Postgres(Sink[K, V]):
    """Rows in a PostgreSQL database: a sink for `app.sink` and `group.sink`.

    Args:
        dsn: A connection string or URI of libpq. It may contain a password, so take it from the environment.
        table: The table's name, or SCHEMA.NAME, spelled as the database spells it.
        mode: `"upsert"` replaces the row of the same key. `"insert"` leaves an existing row unchanged. `"append"`
            inserts; an existing row is then an error of the record.
        row: Makes a record's row: values by column. None for a record without a row; a `Delete` (upsert only) to
            delete one. Every row of a sink has the same columns.
        key: The columns that identify a row. Default: the table's primary key.
        write: A function of a cursor and some events, instead of a table. It writes what it wants in the worker's
            transaction, and must not end the transaction. It may be called again with some or all of the same events,
            as long as nothing of it was committed.

    Attributes:
        dsn: As given.

    Raises:
        ConfigError: An argument cannot be used, or psycopg is not installed.

    Example:
        ```python
        Postgres(
            os.environ["DSN"], "orders", row=lambda event: {"id": event.key, "amount": event.value.amount}
        )
        ```
    """

    engine = "postgres"
    _needs = "psycopg"

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
            raise ConfigError(
                "Postgres: the DSN is empty", hint="check that the variable with the DSN is set"
            )
        self.dsn = dsn
        super().__init__(table, mode=mode, row=row, key=key, write=write)

    @property
    def database(self) -> str:
        """The name of the database in messages. Never a secret."""
        host, database = _host_and_database(self.dsn)
        return f"postgresql://{host}/{database}"

    @property
    def _install(self) -> str:
        return install_hint("postgres")

    @property
    def address(self) -> str:
        """How to connect. It may be a secret."""
        return self.dsn


class Sqlite(Sink[K, V]):
    """Rows in a SQLite file: a sink for `app.sink` and `group.sink`. For the workers of one machine.

    Args:
        path: The file. It is created if it does not exist.
        table: The table's name, or SCHEMA.NAME, spelled as the database spells it.
        mode: `"upsert"` replaces the row of the same key. `"insert"` leaves an existing row unchanged. `"append"`
            inserts; an existing row is then an error of the record.
        row: Makes a record's row: values by column. None for a record without a row; a `Delete` (upsert only) to
            delete one. Every row of a sink has the same columns.
        key: The columns that identify a row. Default: the table's primary key.
        write: A function of a cursor and some events, instead of a table. It writes what it wants in the worker's
            transaction, and must not end the transaction. It may be called again with some or all of the same events,
            as long as nothing of it was committed.

    Attributes:
        path: As given.

    Raises:
        ConfigError: An argument cannot be used.

    Example:
        ```python
        Sqlite("orders.db", "orders", row=lambda event: {"id": event.key, "amount": event.value.amount})
        ```
    """

    engine = "sqlite"
    _needs = "sqlite3"

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
                "Sqlite: the database must be a file: the positions must survive the process",
                hint="give it a path",
            )
        self.path = Path(path)
        super().__init__(table, mode=mode, row=row, key=key, write=write)

    @property
    def _install(self) -> str:
        return "install a Python that has the sqlite3 module"

    @property
    def database(self) -> str:
        """The name of the database in messages. Never a secret."""
        return f"sqlite:{self.path}"

    @property
    def address(self) -> str:
        """How to connect. It may be a secret."""
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
