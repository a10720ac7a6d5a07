"""The programs of docs/how-to/sinks.md do what the page says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.app import declared_app
from pipeline.testing import TestDriver
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "sinks.md"


@pytest.fixture(name="page")
def programs_of_the_page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's programs define, one after the other in one module."""
    monkeypatch.setenv("DATABASE_URL", "host=test")
    app, custom_sql, its_test = blocks(PAGE, "python")
    names: dict[str, Any] = {"__name__": "shop"}
    exec(app + custom_sql + its_test, names)  # noqa: S102 - our own page
    return names


def _sink(page: dict[str, Any], group: str) -> Any:
    """The sink of a group of the page's app."""
    (found,) = [each.sinks[0].sink for each in declared_app(page["app"]).groups if each.name == group]
    return found


def test_the_programs_of_the_page_run(page: dict[str, Any]) -> None:
    """Users copy them."""
    page["test_an_order_is_one_row"]()
    rows, totals = _sink(page, "rows"), _sink(page, "totals")
    rows.key = ("id",)
    driver = TestDriver(page["app"])
    driver.sql(totals, "CREATE TABLE totals (customer text PRIMARY KEY, cents integer NOT NULL)")
    driver.send(page["orders"], "o1", page["Order"]("ann", 500))
    driver.send(page["orders"], "o2", page["Order"]("bob", 700))
    driver.send(page["orders"], "o3", page["Order"]("bob", 50))
    driver.send(page["orders"], "o1", None)
    driver.run()
    assert driver.rows(rows) == [
        {"id": "o2", "customer": "bob", "cents": 700},
        {"id": "o3", "customer": "bob", "cents": 50},
    ]
    assert sorted(driver.sql(totals, "SELECT * FROM totals")) == [("ann", 500), ("bob", 750)]


def test_the_table_that_the_page_creates_fits_the_app(page: dict[str, Any]) -> None:
    """A statement that a reader pastes must create the columns that the program writes."""
    (statement,) = blocks(PAGE, "sql")
    columns = re.findall(r"[(,] ?(\w+) (?:text|bigint)", statement)
    driver = TestDriver(page["app"])
    rows = _sink(page, "rows")
    rows.key = ("id",)
    driver.sql(_sink(page, "totals"), "CREATE TABLE totals (customer text PRIMARY KEY, cents integer)")
    driver.send(page["orders"], "o1", page["Order"]("ann", 500))
    driver.run()
    assert [list(row) for row in driver.rows(rows)] == [columns]
