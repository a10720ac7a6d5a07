"""Running delays per carrier, and the route of every aircraft, from one year of real flights.

Two handler groups: `main` reads flights keyed by carrier, `tails` the same flights keyed by tail number.
Run it with: pipeline worker examples.flights.app:app
"""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event


class Flight(msgspec.Struct, frozen=True):
    """One flight, as the loader makes it of a line of flights.csv; the columns not named here are ignored."""

    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    dep_delay: int | None
    distance: int


class Delay(msgspec.Struct, frozen=True):
    """A carrier so far. `departed`: flights that have a departure delay, that is, were not cancelled."""

    flights: int = 0
    departed: int = 0
    minutes: int = 0
    worst: int = 0


class Hop(msgspec.Struct, frozen=True):
    """An aircraft's latest flight: the `n`-th, and where the one before it landed."""

    n: int
    came_from: str
    origin: str
    dest: str
    miles: int


app = App("flights")
by_carrier = app.topic("flights-by-carrier", key=str, value=Flight)
by_tail = app.topic("flights-by-tail", key=str | None, value=Flight)
delays = app.topic("carrier-delays", key=str, value=Delay)
hops = app.topic("tail-hops", key=str, value=Hop)

totals = app.table("totals", key=str, value=Delay)

tails = app.group("tails")
latest = tails.table("latest", key=str, value=Hop)
unknown = tails.table("unknown", key=str, value=int)


@app.handler(by_carrier)
def add_delay(event: Event[str, Flight], ctx: Context) -> None:
    """Keep a carrier's totals and publish each state of them."""
    total = delay_after(ctx.table(totals).get(event.key, Delay()), event.value)
    ctx.table(totals)[event.key] = total
    ctx.send(delays, event.key, total)


@tails.handler(by_tail)
def add_hop(event: Event[str | None, Flight], ctx: Context) -> None:
    """Follow an aircraft; flights without a tail number are counted per carrier."""
    if event.key is None:
        table = ctx.table(unknown)
        table[event.value.carrier] = table.get(event.value.carrier, 0) + 1
        return
    hop = hop_after(ctx.table(latest).get(event.key), event.value)
    ctx.table(latest)[event.key] = hop
    ctx.send(hops, event.key, hop)


def delay_after(before: Delay, flight: Flight) -> Delay:
    """A carrier's totals once `flight` is in them."""
    if flight.dep_delay is None:
        return Delay(before.flights + 1, before.departed, before.minutes, before.worst)
    return Delay(
        before.flights + 1,
        before.departed + 1,
        before.minutes + flight.dep_delay,
        max(before.worst, flight.dep_delay),
    )


def hop_after(before: Hop | None, flight: Flight) -> Hop:
    """An aircraft's latest hop once `flight` is flown."""
    if before is None:
        return Hop(1, "", flight.origin, flight.dest, flight.distance)
    return Hop(before.n + 1, before.dest, flight.origin, flight.dest, before.miles + flight.distance)
