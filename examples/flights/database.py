"""The flights app with a group that writes to PostgreSQL: what docker-compose.yml runs.

It is the same app with one more group, so that examples/flights/app.py needs no database. DATABASE_URL is its
connection string, and examples/flights/database.sql creates its tables.
Run it with: pipeline worker examples.flights.database:app
"""

from __future__ import annotations

import os

from examples.flights.app import Delay, Flight, app, by_carrier, delays
from pipeline import Event, Postgres

__all__ = ["app", "cancelled", "current"]

_DATABASE = os.environ.get("DATABASE_URL", "dbname=flights")


def delay_row(event: Event[str, Delay]) -> dict[str, object]:
    """A carrier's totals so far. The last one replaces those before it."""
    total = event.value
    return {
        "carrier": event.key,
        "flights": total.flights,
        "departed": total.departed,
        "minutes": total.minutes,
        "worst": total.worst,
    }


def cancelled_row(event: Event[str, Flight]) -> dict[str, object] | None:
    """A flight that did not depart. Other flights have no row."""
    flight = event.value
    if flight.dep_delay is not None:
        return None
    return {
        "carrier": flight.carrier,
        "flight": flight.flight,
        "tailnum": flight.tailnum,
        "origin": flight.origin,
        "dest": flight.dest,
    }


current = Postgres(_DATABASE, "carrier_delays", row=delay_row, key="carrier")
cancelled = Postgres(_DATABASE, "cancelled_flights", row=cancelled_row, mode="append")

rows = app.group("database")
rows.sink(delays, current)
rows.sink(by_carrier, cancelled)
