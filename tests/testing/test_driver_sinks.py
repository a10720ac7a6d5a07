"""Databases of sinks under TestDriver: in memory, each driver's own, unless a test asks for real ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline import App, Delete, Event, Postgres, Sqlite
from pipeline.api.sinks import Row, Sink
from pipeline.errors import ConfigError, FatalTaskError, HandlerError
from pipeline.ports import Step
from pipeline.testing import DriverDatabases, TestDriver
from tests.support.runtime.steps import SINK_STEPS


def row(event: Event[str, int | None]) -> Row:
    return Delete({"id": event.key}) if event.value is None else {"id": event.key, "n": event.value}


def count(cursor: Any, events: Sequence[Event[str, int | None]]) -> None:
    """No idempotent statement."""
    cursor.executemany("INSERT INTO log VALUES (?)", [(event.value,) for event in events])


class Shop:
    """An app as a module of a user has it: its sinks name files."""

    def __init__(self, path: Path) -> None:
        self.app = App("shop")
        self.amounts = self.app.topic("amounts", key=str, value=int | None)
        self.totals: Sqlite[str, int | None] = Sqlite(path, "totals", row=row, key="id")
        group = self.app.group("rows")
        group.sink(self.amounts, self.totals)
        group.sink(self.amounts, Sqlite[str, int | None](path, write=count))

    def driver(self, **options: Any) -> TestDriver:
        driver = TestDriver(self.app, **options)
        if "databases" not in options:
            driver.sql(self.totals, "CREATE TABLE log (n INTEGER)")
        return driver


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


def test_a_test_writes_no_file_and_leaves_nothing_to_the_next(path: Path) -> None:
    """The worker would refuse a file with a test's positions, and the second test would meet the rows of the first."""
    shop = Shop(path)
    for _ in range(2):
        driver = shop.driver()
        driver.send(shop.amounts, "a", 1)
        driver.send(shop.amounts, "b", 2)
        driver.send(shop.amounts, "b", None)
        driver.run()
        assert driver.rows(shop.totals) == [{"id": "a", "n": 1}]
        assert driver.sql(shop.totals, "SELECT n FROM log ORDER BY n") == [(None,), (1,), (2,)]
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("step", SINK_STEPS)
def test_a_crash_at_each_step_leaves_rows_in_memory_exact(path: Path, step: Step) -> None:
    """The process ends; what stands for the file does not."""
    shop = Shop(path)
    driver = shop.driver(partitions=2)
    driver.crash_at(step)
    for n in range(10):
        driver.send(shop.amounts, f"k{n % 4}", n)
    driver.run()
    if not driver.crashed:
        driver.stop()
    assert driver.crashed
    driver.restart(empty_disk=True)
    driver.run()
    driver.stop()
    assert sorted(found["n"] for found in driver.rows(shop.totals)) == [6, 7, 8, 9]
    assert driver.sql(shop.totals, "SELECT count(*), sum(n) FROM log") == [(10, 45)]
    assert driver.sql(shop.totals, "SELECT sum(next_offset) FROM pipeline_positions") == [(10,)]


def test_a_file_is_written_where_a_test_asks_for_it(path: Path) -> None:
    """Then the test says where, and cleans up."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE totals (id TEXT PRIMARY KEY, n INTEGER)")
        connection.execute("CREATE TABLE log (n INTEGER)")
    shop = Shop(path)
    driver = shop.driver(databases=DriverDatabases(connect=True))
    driver.send(shop.amounts, "a", 1)
    driver.run()
    driver.stop()
    with pytest.raises(ConfigError, match="query the database itself"):
        driver.rows(shop.totals)
    driver.databases.crash()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM totals").fetchall() == [("a", 1)]


def test_constraints_of_a_table_that_a_test_creates_hold(path: Path) -> None:
    """So that a test may show what a record does that the table refuses."""
    app = App("shop")
    amounts = app.topic("amounts", key=str, value=int | None)
    sink: Sqlite[str, int | None] = Sqlite(path, "totals", row=row)
    app.group("rows").sink(amounts, sink)
    driver = TestDriver(app)
    driver.sql(sink, "CREATE TABLE totals (id TEXT PRIMARY KEY, n INTEGER CHECK (n <> 13))")
    driver.send(amounts, "a", 1)
    driver.send(amounts, "b", 13)
    with pytest.raises(HandlerError, match="CHECK constraint failed"):
        driver.run()
    assert driver.rows(sink) == [{"id": "a", "n": 1}]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_table_that_is_not_created_comes_into_being(path: Path, engine: str) -> None:
    """A test of a row function needs no schema; and a new release of the app may give more columns."""
    app = App("shop")
    amounts = app.topic("amounts", key=str, value=int | None)
    wide = False

    def make(event: Event[str, int | None]) -> Row:
        return {**row(event), "more": 1} if wide else row(event)  # type: ignore[dict-item]

    sink: Sink[str, int | None]
    sink = (
        Sqlite(path, "t", row=make, key="id")
        if engine == "sqlite"
        else Postgres("host=x", "t", row=make, key="id")
    )
    app.group("rows").sink(amounts, sink)
    driver = TestDriver(app)
    driver.send(amounts, "gone", None)
    driver.run()
    assert driver.rows(sink) == []
    driver.send(amounts, "a", 1)
    driver.run()
    wide = True
    driver.restart()
    driver.send(amounts, "b", 2)
    driver.run()
    wide = False
    driver.restart()
    driver.send(amounts, "a", None)
    driver.run()
    assert driver.rows(sink) == [{"id": "b", "n": 2, "more": 1}]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "BEGIN"])
def test_a_write_function_that_ends_the_transaction_is_found_in_memory(path: Path, end: str) -> None:
    """A unit test should show it, and not the first day in production."""
    app = App("shop")
    amounts = app.topic("amounts", key=str, value=int | None)

    def write(cursor: Any, events: Sequence[Event[str, int | None]]) -> None:
        count(cursor, events)
        cursor.execute(end)

    sink = Sqlite[str, int | None](path, write=write)
    app.group("rows").sink(amounts, sink, on_error="skip")
    driver = TestDriver(app)
    driver.sql(sink, "CREATE TABLE log (n INTEGER)")
    driver.send(amounts, "a", 1)
    with pytest.raises(FatalTaskError, match=r"records amounts.0. offset 0 to 0\) tried to end"):
        driver.run()
    assert driver.sql(sink, "SELECT count(*) FROM log") == [(0,)]
