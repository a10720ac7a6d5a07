"""Apps with sinks under the test driver, on real SQLite and real PostgreSQL: what the first start says, and rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Delete, Event, Postgres, Sqlite
from pipeline.api.sinks import Row, Sink
from pipeline.errors import ConfigError, HandlerError
from pipeline.ports import Step
from pipeline.testing import DriverDatabases, TestDriver
from tests.support.runtime.steps import SINK_STEPS
from tests.support.sinks.server import PostgresUnderTest


def row(event: Event[str, int | None]) -> Row:
    return Delete({"id": event.key}) if event.value is None else {"id": event.key, "n": event.value}


def driver_of(
    databases: DriverDatabases, sink: Sink[str, int | None], **options: Any
) -> tuple[TestDriver, Any]:
    app = App("shop")
    topic = app.topic("amounts", key=str, value=int | None)
    app.group("rows").sink(topic, sink, **options)
    return TestDriver(app, databases=databases), topic


@pytest.fixture
def databases() -> Iterator[DriverDatabases]:
    """Real ones; what a test leaves open is closed."""
    made = DriverDatabases(connect=True)
    yield made
    made.crash()


def ask(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            "CREATE TABLE totals (id TEXT PRIMARY KEY, n INTEGER CHECK (n <> 13));"
            "CREATE TABLE log (id TEXT, n INTEGER);"
        )
    return file


@pytest.mark.parametrize("step", SINK_STEPS)
def test_a_crash_at_each_step_leaves_a_sqlite_file_exact(
    databases: DriverDatabases, path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's own transactions, with the steps of the real protocol."""
    monkeypatch.setattr("pipeline.databases.sqlite.BUSY_S", 0.05)
    app = App("shop")
    topic = app.topic("amounts", key=str, value=int | None)
    rows = app.group("rows")
    rows.sink(topic, Sqlite(path, "totals", row=row))

    def count(cursor: sqlite3.Cursor, events: Sequence[Event[str, int | None]]) -> None:
        cursor.executemany("INSERT INTO log VALUES (?, ?)", [(event.key, event.value) for event in events])

    rows.sink(topic, Sqlite[str, int | None](path, write=count))
    driver = TestDriver(app, partitions=2, databases=databases)
    driver.crash_at(step)
    for n in range(10):
        driver.send(topic, f"k{n % 4}", n)
    driver.send(topic, "k0", None)
    driver.run()
    if not driver.crashed:
        driver.stop()
    assert driver.crashed
    driver.restart(empty_disk=True)
    driver.run()
    driver.stop()
    assert ask(path, "SELECT id, n FROM totals ORDER BY id") == [("k1", 9), ("k2", 6), ("k3", 7)]
    assert sorted(n for (n,) in ask(path, "SELECT n FROM log WHERE n IS NOT NULL")) == list(range(10))
    assert ask(path, "SELECT sum(next_offset), max(process) FROM pipeline_positions") == [(11, "")]


def test_a_constraint_of_the_table_stops_the_task_at_its_record(
    databases: DriverDatabases, path: Path
) -> None:
    """What came before it is committed."""
    driver, topic = driver_of(databases, Sqlite(path, "totals", row=row))
    for n in (1, 2, 13, 4):
        driver.send(topic, f"k{n}", n)
    with pytest.raises(HandlerError, match=r"offset 2 cannot be written by Sqlite .*CHECK constraint failed"):
        driver.run()
    assert ask(path, "SELECT id FROM totals") == [("k1",), ("k2",)]
    assert ask(path, "SELECT next_offset FROM pipeline_positions") == [(2,)]


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"table": "nowhere"}, "no such table", "create it"),
        ({"table": "log"}, "has no primary key", "mode='append'"),
        ({"table": "log", "key": "id"}, "the key id is not unique", "CREATE UNIQUE INDEX|ADD PRIMARY KEY"),
        ({"key": ("id", "x")}, "the key column x is not in the table", "its columns: id, n"),
    ],
)
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_table_that_does_not_fit_is_refused_at_the_start(
    databases: DriverDatabases,
    engine: str,
    path: Path,
    request: pytest.FixtureRequest,
    changes: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    """With the statement that would make it fit."""
    settings = {"table": "totals", "row": row, **changes}
    sink: Sink[str, int | None]
    if engine == "sqlite":
        sink = Sqlite(path, **settings)
    else:
        sink = Postgres(_totals(request), **settings)
    driver, _ = driver_of(databases, sink)
    with pytest.raises(ConfigError, match=message) as caught:
        driver.run()
    assert re.search(hint, str(caught.value))


def _totals(request: pytest.FixtureRequest) -> str:
    server: PostgresUnderTest = request.getfixturevalue("postgres")
    dsn: str = request.getfixturevalue("dsn")
    server.sql(
        dsn, "CREATE TABLE totals (id text PRIMARY KEY, n bigint)", "CREATE TABLE log (id text, n bigint)"
    )
    return dsn


def test_a_role_without_rights_is_told_which_it_needs(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """Roles of applications often may not create tables."""
    role = f"r{dsn.rpartition('=')[2]}"
    postgres.sql(
        dsn,
        f"CREATE ROLE {role} LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "CREATE TABLE totals (id text PRIMARY KEY, n bigint)",
    )
    theirs = dsn.replace("user=postgres", f"user={role}")
    driver, _ = driver_of(databases, Postgres(theirs, "totals", row=row))
    with pytest.raises(ConfigError, match="pipeline_positions is missing and cannot be created") as caught:
        driver.run()
    ddl = str(caught.value.hint).partition(":\n")[2]
    postgres.sql(dsn, ddl, f"GRANT SELECT, INSERT, UPDATE ON pipeline_positions TO {role}")
    driver, _ = driver_of(databases, Postgres(theirs, "totals", row=row))
    with pytest.raises(ConfigError, match="lacks the privilege SELECT and INSERT and UPDATE on the table"):
        driver.run()
    postgres.sql(dsn, f"GRANT SELECT, INSERT, UPDATE, DELETE ON totals TO {role}")
    driver, topic = driver_of(databases, Postgres(theirs, "totals", row=row))
    driver.send(topic, "a", 1)
    driver.send(topic, "b", 2)
    driver.send(topic, "b", None)
    driver.run()
    driver.stop()
    assert postgres.sql(dsn, "SELECT id, n FROM totals") == [("a", 1)]


def test_columns_of_many_types_are_written(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str
) -> None:
    """As a statement, as a copy, and by way of the temporary table."""
    columns = (
        "id int PRIMARY KEY, d numeric, t timestamptz, day date, j jsonb, a int[], b bytea, o boolean, s text"
    )
    postgres.sql(dsn, f"CREATE TABLE many ({columns}, kept text DEFAULT 'yes' NOT NULL)")
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    values = {
        "d": Decimal("1.50"), "t": at, "day": date(2026, 1, 31), "j": {"x": [1, None]}, "a": [1, 2], "b": b"\x00\xff",
        "o": True, "s": "tab\t, newline\n, \\N, umlaut ü",
    }  # fmt: skip
    app = App("shop")
    topic = app.topic("amounts", key=int, value=int)
    group = app.group("rows")
    group.sink(topic, Postgres(dsn, "many", row=lambda event: {"id": event.key, **values}))
    driver = TestDriver(app, databases=databases)
    for batch in (1, 400):
        for n in range(batch):
            driver.send(topic, n, n)
        driver.run()
    found = postgres.sql(
        dsn, "SELECT d, t, day, j, a, b, o, s, kept, count(*) FROM many GROUP BY 1,2,3,4,5,6,7,8,9"
    )
    assert found == [(*values.values(), "yes", 400)]


def test_a_column_that_the_table_does_not_have_stops_the_task_whatever_its_policy(
    databases: DriverDatabases, path: Path
) -> None:
    """It is the program's mistake; skipping would lose every record."""
    driver, topic = driver_of(
        databases,
        Sqlite(path, "totals", row=lambda event: {"id": event.key, "typo": event.value}),
        on_error="skip",
    )
    driver.send(topic, "a", 1)
    with pytest.raises(
        HandlerError, match="row returned the column typo, which the table does not have"
    ) as caught:
        driver.run()
    assert caught.value.message.count(str(path)) == 1
    assert caught.value.hint == "its columns: id, n"


@pytest.mark.parametrize("odd", [{"x": object()}, object(), "nul\0", "\ud800", 2**70])
@pytest.mark.parametrize("count", [1, 150])
def test_a_value_that_has_no_form_in_the_database_is_its_records_error(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, odd: object, count: int
) -> None:
    """Whatever the client's error is, the worker continues."""
    postgres.sql(dsn, "CREATE TABLE odd (id bigint PRIMARY KEY, j jsonb, t text)")
    app = App("shop")
    topic = app.topic("amounts", key=int, value=int)
    column = "id" if isinstance(odd, int) else "t" if isinstance(odd, str) else "j"

    def make(event: Event[int, int]) -> dict[str, object]:
        found: dict[str, object] = {"id": event.key, "j": None, "t": "x"}
        return {**found, column: odd} if event.key == 0 else found

    app.group("rows").sink(topic, Postgres(dsn, "odd", row=make), on_error="skip")
    driver = TestDriver(app, databases=databases)
    for n in range(count + 1):
        driver.send(topic, n, n)
    driver.run()
    assert postgres.sql(dsn, "SELECT count(*) FROM odd") == [(count,)]
    assert len(driver.log_events("record_rejected")) == 1


def test_a_key_that_cannot_tell_rows_apart_is_its_records_error(
    databases: DriverDatabases, path: Path
) -> None:
    """A list has no hash, and would end the worker while rows are written."""
    unhashable: Any = lambda event: {"id": [event.key] if event.value == 1 else event.key, "n": 1}  # noqa: E731
    driver, topic = driver_of(databases, Sqlite(path, "totals", row=unhashable), on_error="skip")
    driver.send(topic, "a", 1)
    driver.send(topic, "b", 2)
    driver.run()
    assert ask(path, "SELECT id FROM totals") == [("b",)]


def test_a_batch_that_changes_a_row_too_often_is_written_in_parts(
    databases: DriverDatabases, postgres: PostgresUnderTest, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a CHECK each change is shown to the server, and visits the versions before it: their number is bounded."""
    monkeypatch.setattr("pipeline.databases.postgres.session.VERSIONS", 50)
    postgres.sql(
        dsn,
        "CREATE TABLE totals (id text PRIMARY KEY, n bigint CHECK (n <> 13))",
        "CREATE TABLE seen (transaction bigint, n bigint)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen VALUES (txid_current(), NEW.n); RETURN NULL; END'",
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON totals FOR EACH ROW EXECUTE FUNCTION note()",
    )
    driver, topic = driver_of(databases, Postgres(dsn, "totals", row=row), on_error="skip")
    for n in range(250):
        driver.send(topic, "a", n)
    driver.run()
    assert postgres.sql(dsn, "SELECT * FROM totals") == [("a", 249)]
    assert len(driver.log_events("record_rejected")) == 1
    sizes = postgres.sql(dsn, "SELECT count(*) FROM seen GROUP BY transaction ORDER BY min(n)")
    assert sum(int(str(size)) for (size,) in sizes) == 249
    assert max(int(str(size)) for (size,) in sizes) <= 50
