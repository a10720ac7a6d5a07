"""The app of the security tests: totals per carrier with dead letters, a second group of handlers, and a sink.

A flight with a delay of 666 minutes fails until the file `fixed` exists.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pipeline import App, Context, Event, Sqlite
from tests.support.checker import made_from

PREFIX = os.environ.get("DELAYS_PREFIX", "delays")


class Flight(msgspec.Struct, frozen=True):
    """An input."""

    carrier: str
    dep_delay: int


class Delay(msgspec.Struct, frozen=True):
    """An output."""

    flights: int = 0
    minutes: int = 0


app = App(PREFIX)
flights = app.topic(f"{PREFIX}-flights", key=str, value=Flight)
delays = app.topic(f"{PREFIX}-totals", key=str, value=Delay)
totals = app.table("totals", key=str, value=Delay)


@app.handler(flights, on_error="dead_letter")
def add_delay(event: Event[str, Flight], ctx: Context) -> None:
    """Add to the carrier's total and publish it."""
    if event.value.dep_delay == 666 and not Path("fixed").exists():
        raise ValueError("no such delay")
    table = ctx.table(totals)
    before = table.get(event.key, Delay())
    total = Delay(before.flights + 1, before.minutes + event.value.dep_delay)
    table[event.key] = total
    ctx.send(delays, event.key, total, headers=made_from(f"{PREFIX}.main", event))


counting = app.group("counting")
counts = counting.table("counts", key=str, value=int)


@counting.handler(delays)
def count(event: Event[str, Delay], ctx: Context) -> None:
    """Count the totals of a carrier, with no output."""
    table = ctx.table(counts)
    table[event.key] = table.get(event.key, 0) + 1


database = app.group("database")


def row_of(event: Event[str, Delay]) -> dict[str, object]:
    """The row of a total."""
    return {"carrier": event.key, "flights": event.value.flights, "minutes": event.value.minutes}


database.sink(delays, Sqlite("totals.db", "totals", row=row_of))
