"""The rows of the flights app with a database, in memory. The containers test compares them in PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path

from examples.flights.app import Flight, by_carrier
from examples.flights.database import app, cancelled, current
from pipeline.testing import TestDriver

_SQL = Path(__file__).parents[2] / "examples" / "flights" / "database.sql"


def _flight(delay: int | None) -> Flight:
    return Flight("AA", 11, "N1", "JFK", "LAX", delay, 2475)


def test_rows_are_totals_and_cancelled_flights() -> None:
    """A carrier has one row, each cancelled flight has its own, and a restart writes none of them again."""
    driver = TestDriver(app)
    for delay in (5, None, -3, None):
        driver.send(by_carrier, "AA", _flight(delay))
    driver.run()
    driver.restart()
    driver.run()
    assert driver.rows(current) == [{"carrier": "AA", "flights": 4, "departed": 2, "minutes": 2, "worst": 5}]
    row = {"carrier": "AA", "flight": 11, "tailnum": "N1", "origin": "JFK", "dest": "LAX"}
    assert driver.rows(cancelled) == [row, row]


def test_the_tables_have_the_columns_of_the_rows() -> None:
    """A missing column would fail a task at its first row."""
    columns = {
        name: re.findall(r"^    (\w+) ", body, re.MULTILINE)
        for name, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", _SQL.read_text(), re.DOTALL)
    }
    assert columns == {
        "carrier_delays": ["carrier", "flights", "departed", "minutes", "worst"],
        "cancelled_flights": ["carrier", "flight", "tailnum", "origin", "dest"],
    }
