"""What users write: it must type-check under mypy --strict as it stands. Read by test_typing.py, and run by it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import (
    App,
    AsyncContext,
    Batch,
    Context,
    Dedup,
    Delete,
    Delivered,
    Delivery,
    Event,
    Postgres,
    Producer,
    Row,
    Sqlite,
    Table,
    Topic,
)
from pipeline.testing import TestDriver, TestProducer


class Flight(msgspec.Struct, frozen=True, tag=True):
    carrier: str
    dep_delay: int | None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    carrier: str


class Delay(msgspec.Struct, frozen=True):
    flights: int = 0
    minutes: int = 0


class Alert(msgspec.Struct, frozen=True):
    text: str


class Pool:
    def rate(self, carrier: str) -> float:
        return len(carrier) / 2


class MyCodec:
    def encode(self, value: Flight | Cancel, /) -> bytes:
        return msgspec.json.encode(value)

    def decode(self, data: bytes, /) -> Flight | Cancel:
        made: Flight | Cancel = msgspec.json.decode(data, type=Flight | Cancel)
        return made


class ByMessage:
    def encode(self, value: Delay, /) -> bytes:
        return msgspec.json.encode(value)

    def decode(self, data: bytes, message: Any, /) -> Delay:
        return Delay(len(message.headers() or ()))


app = App("flight-delays")
flights = app.topic("flights", key=str, value=Flight)
both = app.topic("both", key=str, value=Flight | Cancel)
stones = app.topic("stones", key=str, value=Delay | None)
unkeyed = app.topic("unkeyed", value=Flight, codec="msgpack")
nullable = app.topic("nk", key=str | None, value=Flight)
raw = app.topic("raw", key=bytes, value=bytes)
delays = app.topic("carrier-delays", key=str, value=Delay)
alerts = app.topic("alerts", key=str, value=Alert)
own = app.topic("own", key=str, value=Flight | Cancel, codec=MyCodec())
by_message = app.topic("by-message", key=str, value=Delay, codec=ByMessage())
again = app.topic("again", key=str, value=Flight, dedup=Dedup(ttl_s=3600))
chosen = app.topic(
    "chosen",
    key=str,
    value=Flight | Cancel,
    dedup=Dedup(ttl_s=3600.5, id=lambda event: f"{event.key}-{event.value.carrier}", duplicates_to=raw),
)
keyless = app.topic(
    "keyless", value=Flight, dedup=Dedup(ttl_s=60, id=lambda event: event.value.carrier.encode())
)


def any_id(event: Event[object, object]) -> bytes:
    return b"%d" % event.offset


shared: Dedup[object, object] = Dedup(ttl_s=60, id=any_id)
shared_by = app.topic("shared", key=int, value=Delay, dedup=shared)
totals = app.table("totals", key=str, value=Delay)
routes = app.table("routes", key=tuple[str, str], value=int)
pool = app.resource(Pool)


@app.handler(flights, on_error="dead_letter")
def add(event: Event[str, Flight], ctx: Context) -> None:
    table = ctx.table(totals)
    seen = table.get(event.key, Delay())
    total = Delay(seen.flights + 1, seen.minutes + (event.value.dep_delay or 0))
    table[event.key] = total
    ctx.send(delays, event.key, total)
    by_route = ctx.table(routes)
    route = (event.key, event.value.carrier)
    by_route[route] = by_route.get(route, 0) + 1
    if total.minutes > 1000 * ctx.resource(pool).rate(event.key):
        ctx.send(alerts, event.key, Alert("late"), headers=[("k", b"v")])


@app.handler(both)
def on_both(event: Event[str, Flight | Cancel], ctx: Context) -> None:
    match event.value:
        case Cancel(carrier=carrier):
            ctx.send(stones, carrier, None)
            ctx.send(own, carrier, event.value, timestamp_ms=event.timestamp_ms)
        case Flight():
            del ctx.table(routes)[event.key, event.value.carrier]


@app.handler(unkeyed)
def without_a_key(event: Event[None, Flight], ctx: Context) -> None:
    nothing: None = event.key
    ctx.send(unkeyed, nothing, event.value)


@app.handler(nullable)
def perhaps_a_key(event: Event[str | None, Flight], ctx: Context) -> None:
    ctx.send(nullable, event.key, event.value)
    for (origin, carrier), count in ctx.table(routes).items(prefix=("AA",)):
        ctx.send(alerts, origin, Alert(f"{carrier} {count}"))


def audit(event: Event[str, object], ctx: Context) -> None:
    """One handler for topics of any value."""


app.handler(flights)(audit)
app.handler(delays, on_error="skip")(audit)

stage3 = app.group("stage3")
rated = stage3.table("rated", key=str, value=float)


@stage3.async_handler(delays, concurrency=8, timeout_s=5.0, on_error="dead_letter", retries=2)
async def rate(event: Event[str, Delay], ctx: AsyncContext) -> None:
    row: Row[float] = ctx.row(rated, event)
    before: float = row.get(0.0)
    row.value = before + ctx.resource(pool).rate(event.key)
    after: float | None = row.value
    if after is None or after > 100.0:
        row.value = None
    ctx.send(alerts, event.key, Alert(f"rated {before}"), headers=[("rated", b"yes")])


stage2 = app.group("hourly")
hourly: Table[str, Delay] = stage2.table("hourly", key=str, value=Delay)


@stage2.batch_handler(delays)
def roll(batch: Batch[str, Delay], ctx: Context) -> None:
    minutes = sum(value.minutes for value in batch.values)
    newest: int = max(batch.timestamps_ms)
    ctx.table(hourly).update({key: Delay(newest, minutes) for key in batch.keys})
    found: dict[str, Delay] = ctx.table(hourly).get_many(list(batch.keys))
    if batch[0].key in found and len(batch[1:]) == len(batch) - 1:
        perhaps: Delay | None = ctx.table(hourly).get("x")
        other: Delay | str = ctx.table(hourly).get("x", "none")
        del perhaps, other


def flight_row(event: Event[str, Flight]) -> dict[str, str | int | None] | Delete:
    if event.value.dep_delay is None:
        return Delete({"carrier": event.key})
    return {"carrier": event.key, "delay": event.value.dep_delay}


archive = app.group("archive")
archive.sink(flights, Postgres("host=db", "flights", row=flight_row, key="carrier"), on_error="skip")
archive.sink(flights, Postgres("host=db", "log", mode="append", row=lambda e: {"delay": e.value.dep_delay}))
a_file: Sqlite[str, Flight] = Sqlite("flights.db", "log", mode="append", row=lambda e: {"carrier": e.key})


def a_test_of_it() -> list[Delay]:
    driver = TestDriver(app)
    driver.send(flights, "AA", Flight("AA", 10))
    driver.run()
    rows: dict[str, Delay] = driver.table(totals)
    outputs: Sequence[Event[str, Delay]] = driver.outputs(delays)
    return [*rows.values(), *(event.value for event in outputs)]


def generic(topic: Topic[str, Delay], ctx: Context) -> None:
    ctx.send(topic, "AA", Delay())


def a_service(producer: Producer) -> Delivered:
    sent: Delivery = producer.send(flights, "AA", Flight("AA", 1), id="7", headers=[("k", b"v")])
    producer.send(
        unkeyed,
        None,
        Flight("AA", 1),
        on_delivery=lambda done: done.exception(),
    )
    producer.send(stones, "AA", None, id=b"7", timestamp_ms=5)
    producer.send(both, "AA", Cancel("AA"))
    return sent.result()


async def an_asynchronous_service(producer: Producer) -> int:
    delivered: Delivered = await producer.asend(flights, "AA", Flight("AA", 1))
    return delivered.offset


def a_test_of_a_service() -> int:
    with TestProducer(flights, unkeyed, stones, both) as producer:
        return a_service(producer).offset
