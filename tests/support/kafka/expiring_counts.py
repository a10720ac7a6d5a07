"""The app of the expiry tests on a real Kafka: each event tells what it saw of a table with `ttl_s` and of a history.

Names come from the environment, because every test has its own topics on a shared broker.
"""

from __future__ import annotations

import os

import msgspec

from pipeline import App, Context, Event

PREFIX = os.environ.get("COUNTS_PREFIX", "counts")
TTL_MS = KEEP_MS = 400


class Happened(msgspec.Struct, frozen=True):
    """An input."""

    n: int
    at_ms: int


class Seen(msgspec.Struct, frozen=True):
    """An output: the clock, the number in the row of the key, and the numbers in its history."""

    n: int
    at_ms: int
    clock_ms: int
    row: int | None
    added: bool
    numbers: list[int]


app = App(PREFIX)
events = app.topic(f"{PREFIX}-events", key=str, value=Happened, event_time_ms=lambda event: event.value.at_ms)
seen = app.topic(f"{PREFIX}-seen", key=str, value=Seen)
rows = app.table("rows", key=str, value=int, ttl_s=TTL_MS / 1000)
recent = app.history("recent", key=str, value=int, keep_s=KEEP_MS / 1000)


@app.handler(events)
def collect(event: Event[str, Happened], ctx: Context) -> None:
    """Tell what was seen, and write both."""
    table, history, key, it = ctx.table(rows), ctx.history(recent), event.key, event.value
    before = table.get(key)
    added = history.add(event, it.n)
    numbers = [number for _, number in history.between(key, it.at_ms - KEEP_MS, it.at_ms)]
    table[key] = it.n
    ctx.send(seen, key, Seen(it.n, it.at_ms, ctx.clock_ms, before, added, numbers))
