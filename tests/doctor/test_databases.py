"""`pipeline doctor` on the databases of sinks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline import App, Sqlite
from pipeline.api.app import DeclaredApp
from pipeline.app import declared_app
from pipeline.databases import RealDatabases
from pipeline.doctor.findings import Level
from pipeline.doctor.run import check_databases


def sinking(path: Path) -> DeclaredApp:
    app = App("shop")
    orders = app.topic("orders", key=str, value=int)
    app.sink(orders, Sqlite(path, "orders", row=lambda event: {"id": event.key, "amount": event.value}))
    return declared_app(app)


def test_a_missing_table_is_a_problem_and_a_right_one_is_fine(tmp_path: Path) -> None:
    """The group would not start, and its lag would grow unnoticed."""
    path = tmp_path / "shop.db"
    (missing,) = check_databases(sinking(path), RealDatabases())
    assert missing.level is Level.PROBLEM
    assert "orders" in missing.text
    assert missing.hint
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, amount INTEGER)")
    (right,) = check_databases(sinking(path), RealDatabases())
    assert right.level is Level.OK


def test_a_database_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    """A wrong path or password is found before the worker is started."""
    (found,) = check_databases(sinking(tmp_path / "no" / "directory" / "shop.db"), RealDatabases())
    assert found.level is Level.PROBLEM
