"""The app of the test driver's tests: delays of carriers."""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event


class Flight(msgspec.Struct, frozen=True):
    carrier: str
    dep_delay: int | None


class Delay(msgspec.Struct, frozen=True):
    flights: int = 0
    minutes: int = 0


app = App("flight-delays")
flights = app.topic("flights", key=str, value=Flight)
delays = app.topic("carrier-delays", key=str, value=Delay)
totals = app.table("totals", key=str, value=Delay)


@app.handler(flights, on_error="dead_letter")
def add_delay(event: Event[str, Flight], ctx: Context) -> None:
    """The program of the README."""
    table = ctx.table(totals)
    seen = table.get(event.key, Delay())
    total = Delay(seen.flights + 1, seen.minutes + (event.value.dep_delay or 0))
    table[event.key] = total
    ctx.send(delays, event.key, total)
