"""Write functions that end the sink's transaction, in every spelling: found, and nothing of the batch is committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pipeline import App, Event, Postgres, Sqlite
from pipeline.databases import RealDatabases
from pipeline.errors import ConfigError, FatalTaskError, HandlerError, InvariantError
from pipeline.testing import DriverDatabases, TestDriver
from tests.support.sinks.server import PostgresUnderTest

Function = Callable[[Any, Sequence[Event[str, int]]], None]
End = Callable[[Any], object]

DDL = "CREATE TABLE t (id text, n integer UNIQUE CHECK (n <> 13))"
INSERT = {"postgres": "INSERT INTO t VALUES (%s, %s)", "sqlite": "INSERT INTO t VALUES (?, ?)"}


@pytest.fixture
def databases() -> Iterator[DriverDatabases]:
    """Real ones; what a test leaves open is closed."""
    made = DriverDatabases(connect=True)
    yield made
    made.crash()


@pytest.fixture(scope="module")
def database(postgres: PostgresUnderTest) -> str:
    """One for all tests of this file: to create one takes longer than a test."""
    return postgres.create_database()


@pytest.fixture
def dsn(postgres: PostgresUnderTest, database: str) -> str:
    """That database with the empty table."""
    postgres.sql(database, "DROP TABLE IF EXISTS t, pipeline_positions", DDL)
    return database


class Shop:
    """An app whose sink is a write function. `function` may be replaced, as a corrected program does."""

    def __init__(
        self, databases: DriverDatabases, place: str | Path, function: Function, on_error: Any = "stop"
    ) -> None:
        self.function = function
        app = App("shop")
        self.amounts = app.topic("amounts", key=str, value=int)

        def write(cursor: Any, events: Sequence[Event[str, int]]) -> None:
            self.function(cursor, events)

        sink = Postgres(place, write=write) if isinstance(place, str) else Sqlite(place, write=write)
        self.engine = sink.engine
        app.group("rows").sink(self.amounts, sink, on_error=on_error)
        self.driver = TestDriver(app, databases=databases)

    def insert(self, cursor: Any, events: Sequence[Event[str, int]]) -> None:
        for event in events:
            cursor.execute(INSERT[self.engine], (event.key, event.value))

    def send(self, *values: int) -> None:
        for value in values:
            self.driver.send(self.amounts, f"k{value}", value)

    def restart(self) -> None:
        """The corrected program."""
        self.function = self.insert
        self.driver.restart()
        self.driver.run()


def ending(end: End, then: str, shop: list[Shop]) -> Function:
    """Writes half of its events, ends the transaction, and `then` continues, raises, or hides what was raised."""

    def function(cursor: Any, events: Sequence[Event[str, int]]) -> None:
        half = len(events) // 2
        shop[0].insert(cursor, events[:half])
        if then == "hides":
            with suppress(psycopg.Error):
                end(cursor)
        else:
            end(cursor)
        if then == "raises":
            raise ValueError("after that")
        shop[0].insert(cursor, events[half:])

    return function


def _again(statement: str) -> End:
    def end(cursor: Any) -> None:
        with suppress(psycopg.Error):
            cursor.execute(statement)
        cursor.connection.pgconn.exec_(b"BEGIN")
        cursor.connection.pgconn.exec_(b"SAVEPOINT _pg3_1")

    return end


def _pipelined(cursor: Any) -> None:
    with cursor.connection.pipeline():
        cursor.execute("COMMIT")


ENDS: dict[str, End] = {
    "COMMIT": lambda cursor: cursor.execute("COMMIT"),
    "end": lambda cursor: cursor.execute("  end transaction"),
    "comment": lambda cursor: cursor.execute("/* done */ COMMIT AND CHAIN"),
    "sql.SQL": lambda cursor: cursor.execute(sql.SQL("COMMIT")),
    "second statement": lambda cursor: cursor.execute("SELECT 1; COMMIT"),
    "connection.execute": lambda cursor: cursor.connection.execute("COMMIT"),
    "executemany": lambda cursor: cursor.executemany("COMMIT", [()]),
    "own cursor": lambda cursor: cursor.connection.cursor().execute("COMMIT"),
    "commit()": lambda cursor: cursor.connection.commit(),
    "pgconn": lambda cursor: cursor.connection.pgconn.exec_(b"COMMIT"),
    "pipeline": _pipelined,
    "COMMIT, BEGIN": _again("COMMIT"),
    "ROLLBACK": lambda cursor: cursor.execute("ROLLBACK"),
    "rollback()": lambda cursor: cursor.connection.rollback(),
    "ROLLBACK, BEGIN": _again("ROLLBACK"),
    "PREPARE": lambda cursor: cursor.execute("PREPARE TRANSACTION 'half'"),
    "close()": lambda cursor: cursor.connection.close(),
}


@pytest.mark.parametrize("then", ["continues", "raises", "hides"])
@pytest.mark.parametrize("how", ENDS)
def test_a_write_that_ends_the_transaction_commits_nothing(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, how: str, then: str
) -> None:
    """The positions were moved in it: rows that the function had not written would be lost without a word."""
    shop: list[Shop] = []
    shop.append(Shop(databases, dsn, ending(ENDS[how], then, shop), on_error="skip"))
    shop[0].send(1, 2, 3, 4)
    found = r"function Shop.* \(records amounts\[0\] offset 0 to 3\) has (ended|closed)"
    with pytest.raises(FatalTaskError, match=found) as caught:
        shop[0].driver.run()
    assert "remove COMMIT" in (caught.value.hint or "")
    assert postgres.sql(dsn, "SELECT * FROM t") == []
    assert postgres.sql(dsn, "SELECT next_offset FROM pipeline_positions") == [(0,)]
    shop[0].restart()
    assert postgres.sql(dsn, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("then", ["continues", "raises"])
def test_a_write_that_removes_the_guard_and_commits_is_told_what_it_did(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, then: str
) -> None:
    """What is committed cannot be taken back: the error says so, and how to write the missing rows."""
    shop: list[Shop] = []
    end: End = lambda cursor: cursor.execute("CLOSE ALL; COMMIT")  # noqa: E731
    shop.append(Shop(databases, dsn, ending(end, then, shop), on_error="skip"))
    shop[0].send(1, 2, 3, 4)
    found = r"\(records amounts\[0\] offset 0 to 3\) has committed the transaction"
    with pytest.raises(FatalTaskError, match=found) as caught:
        shop[0].driver.run()
    assert "--from TOPIC=OFFSET" in (caught.value.hint or "")
    assert postgres.sql(dsn, "SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    shop[0].driver.restart()
    shop[0].driver.reset("amounts=2", group="rows")
    shop[0].restart()
    assert postgres.sql(dsn, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,), (4,)]


def test_a_function_that_raises_rollback_writes_no_row(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """The client's own exception undoes a block without an error; around a whole batch that loses its rows."""

    def function(cursor: Any, events: Sequence[Event[str, int]]) -> None:
        raise psycopg.Rollback

    shop = Shop(databases, dsn, function)
    shop.send(1)
    with pytest.raises(HandlerError, match="offset 0 cannot be written"):
        shop.driver.run()
    shop.restart()
    assert postgres.sql(dsn, "SELECT n FROM t") == [(1,)]


def test_what_a_function_undoes_itself_is_its_own_business(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """Savepoints, cursors and settings are not the end of the transaction, and leave nothing behind."""
    postgres.sql(dsn, "ALTER TABLE t ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    shop: list[Shop] = []

    def function(cursor: Any, events: Sequence[Event[str, int]]) -> None:
        connection = cursor.connection
        connection.row_factory = psycopg.rows.dict_row
        connection.cursor_factory = psycopg.ClientCursor
        with suppress(psycopg.Error), connection.transaction():
            cursor.execute("INSERT INTO t VALUES ('x', 13)")
        cursor.execute("SAVEPOINT own")
        cursor.execute("INSERT INTO t VALUES ('y', 99)")
        cursor.execute("ROLLBACK TO own")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        shop[0].insert(cursor, events)

    shop.append(Shop(databases, dsn, function))
    for value in (1, 2):
        shop[0].send(value)
        shop[0].driver.run()
    assert postgres.sql(dsn, "SELECT id, n FROM t ORDER BY n") == [("k1", 1), ("k2", 2)]
    assert postgres.sql(dsn, "SELECT next_offset FROM pipeline_positions") == [(2,)]


@pytest.mark.parametrize("hides", [False, True])
def test_a_record_that_fails_is_found_though_others_pass(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, hides: bool
) -> None:
    """The check of the transaction must not take a record's own error for an ended transaction."""
    shop: list[Shop] = []

    def function(cursor: Any, events: Sequence[Event[str, int]]) -> None:
        with suppress(*[psycopg.Error] if hides else []):
            shop[0].insert(cursor, events)

    shop.append(Shop(databases, dsn, function, on_error="skip"))
    shop[0].send(1, 2, 13, 4)
    shop[0].driver.run()
    assert postgres.sql(dsn, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (4,)]
    assert len(shop[0].driver.log_events("record_rejected")) == 1


def test_a_commit_that_is_a_rollback_is_not_taken_for_done(dsn: str) -> None:
    """The server says ROLLBACK, and no error, when a statement before it had failed."""
    session = RealDatabases().open(Postgres(dsn, write=print), "shop")
    session.prepare()
    session.begin()
    with pytest.raises(ConfigError):
        session.execute("SELECT FROM nowhere")  # type: ignore[attr-defined]  # a SqlSession
    with pytest.raises(InvariantError, match="had failed: ROLLBACK"):
        session.commit()
    session.close()


SQLITE_ENDS: dict[str, End] = {
    "COMMIT": lambda cursor: cursor.execute("COMMIT"),
    "commit()": lambda cursor: cursor.connection.commit(),
    "executescript": lambda cursor: cursor.executescript("SELECT 1"),
    "ROLLBACK": lambda cursor: cursor.connection.execute("ROLLBACK"),
    "OR ROLLBACK": lambda cursor: cursor.execute("INSERT OR ROLLBACK INTO t VALUES ('x', 13)"),
    "close()": lambda cursor: cursor.connection.close(),
}


@pytest.mark.parametrize("then", ["continues", "raises", "hides"])
@pytest.mark.parametrize("how", SQLITE_ENDS)
def test_a_write_that_ends_sqlites_transaction_is_found(
    databases: DriverDatabases, tmp_path: Path, how: str, then: str
) -> None:
    """SQLite refuses most of it; its own rollback cannot be refused."""
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(DDL)
    shop: list[Shop] = []

    def end(cursor: Any) -> None:
        with suppress(*[sqlite3.Error] if then == "hides" else []):
            SQLITE_ENDS[how](cursor)

    shop.append(Shop(databases, file, ending(end, then, shop), on_error="skip"))
    shop[0].send(1, 2, 3, 4)
    harmless = then == "hides" and how not in {
        "OR ROLLBACK",
        "close()",
    }  # it was refused, and nothing had ended
    if not harmless:
        with pytest.raises(FatalTaskError, match="write function"):
            shop[0].driver.run()
        shop[0].restart()
    else:
        shop[0].driver.run()
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT DISTINCT n FROM t ORDER BY n").fetchall()
        assert found == [(1,), (2,), (3,), (4,)]
        assert connection.execute("SELECT next_offset FROM pipeline_positions").fetchall() == [(4,)]
