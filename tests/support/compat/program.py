"""The apps that an earlier build and this build run in turn. They use nothing but the public API that both have.

The build is the one that Python finds first. The environment says what a release of the program would change:

    COMPAT_SCHEMA     1, 2 or 3: the type of the values in the table `tallies`; 2 and 3 upgrade the rows of 1 and 2
    COMPAT_REPAIRED   set: the handler accepts the records that it refuses otherwise
    COMPAT_DATABASES  the directory of the SQLite files, one for each app
    COMPAT_POSTGRES   where the app `ledger` writes its rows instead
    COMPAT_TASKS      the tasks of the group `main`, which only this build can declare
    COMPAT_NAMES      more apps of this kind, by name, separated by spaces
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline import App, Context, Dedup, Event, Postgres, Sqlite
from tests.support.checker import made_from

TTL_S = 10 * 365 * 24 * 3600  # the recorded ids count for as long as the package allows
BLOBS = 5
BLOB_BYTES = 150_000  # five of them do not fit into one chunk of an entry

SCHEMA = int(os.environ.get("COMPAT_SCHEMA", "3"))
REPAIRED = "COMPAT_REPAIRED" in os.environ
DATABASES = Path(os.environ.get("COMPAT_DATABASES", "."))
POSTGRES = os.environ.get("COMPAT_POSTGRES", "")
DECLARED: Any = {"tasks": int(os.environ["COMPAT_TASKS"])} if "COMPAT_TASKS" in os.environ else {}


class Order(msgspec.Struct, frozen=True):
    """An input. The other columns of the loaded file are ignored."""

    n: int


class Sum(msgspec.Struct, frozen=True):
    """The number of inputs of a key, and their sum."""

    count: int
    total: int


class Tally2(msgspec.Struct, frozen=True):
    """A tally in schema 2. `since`: the schema under which the row was created."""

    count: int
    since: int


class Tally3(msgspec.Struct, frozen=True):
    """The same in schema 3, under other names."""

    times: int
    since: int


def refused(n: int) -> bool:
    """Whether the handler refuses the input until it is repaired."""
    return n % 20 == 3


def with_blobs(n: int) -> bool:
    """Whether the input writes large rows."""
    return n % 200 == 50


def blob(n: int, number: int) -> bytes:
    """A large row."""
    return f"{n}.{number};".encode().ljust(BLOB_BYTES, b"-")


def make_app(name: str) -> App:
    """An app with a table of each codec, dead letters, dedup, a group without errors, and a group of sinks."""
    app = App(name, **DECLARED)
    repeats = app.topic(f"{name}-repeats", key=str, value=Order)
    dedup: Dedup[str, Order] = Dedup(ttl_s=TTL_S, duplicates_to=repeats)
    orders = app.topic(f"{name}-orders", key=str, value=Order, dedup=dedup)
    sums = app.topic(f"{name}-sums", key=str, value=Sum)
    counts = app.topic(f"{name}-counts", key=str, value=int)
    totals = app.table("totals", key=str, value=Sum)
    toggles = app.table("toggles", key=tuple[str, int], value=Sum, codec="msgpack")
    blobs = app.table("blobs", key=int, value=bytes)

    @app.handler(orders, on_error="dead_letter")
    def add(event: Event[str, Order], ctx: Context) -> None:
        n = event.value.n
        before = ctx.table(totals).get(event.key, Sum(0, 0))
        after = Sum(before.count + 1, before.total + n)
        ctx.table(totals)[event.key] = after
        toggle = (event.key, n % 5)
        if toggle in ctx.table(toggles):
            del ctx.table(toggles)[toggle]
        else:
            ctx.table(toggles)[toggle] = Sum(1, n % 5)
        if with_blobs(n):
            for number in range(BLOBS):
                ctx.table(blobs)[n * BLOBS + number] = blob(n, number)
        ctx.send(sums, event.key, after, headers=made_from(f"{name}.main", event))
        if refused(n) and not REPAIRED:
            raise ValueError(f"{n} is refused until the handler is repaired")

    counting = app.group("counting")
    tallies: Any = counting.table(
        "tallies",
        key=str,
        value={1: int, 2: Tally2, 3: Tally3}[SCHEMA],
        upgrade={1: None, 2: upgrade_to_2, 3: upgrade_to_3}[SCHEMA],
    )

    @counting.handler(orders)
    def count(event: Event[str, Order], ctx: Context) -> None:
        table = ctx.table(tallies)
        before: Any = table.get(event.key)
        if SCHEMA == 1:
            after: Any = (before or 0) + 1
            times = after
        elif SCHEMA == 2:
            after = Tally2(before.count + 1, before.since) if before else Tally2(1, 2)
            times = after.count
        else:
            after = Tally3(before.times + 1, before.since) if before else Tally3(1, 3)
            times = after.times
        table[event.key] = after
        ctx.send(counts, event.key, times, headers=made_from(f"{name}.counting", event))

    rows = app.group("rows")
    if name == "ledger" and POSTGRES:
        rows.sink(sums, Postgres(POSTGRES, "latest", row=latest_row))
        rows.sink(sums, Postgres(POSTGRES, "history", mode="append", row=history_row))
    else:
        database = DATABASES / f"{name}.sqlite"
        rows.sink(sums, Sqlite(database, "latest", row=latest_row))
        rows.sink(sums, Sqlite(database, "history", mode="append", row=history_row))
    return app


def create_tables(execute: Callable[[str], object]) -> None:
    """The tables of an app's sinks."""
    execute("CREATE TABLE latest (account TEXT PRIMARY KEY, count INTEGER, total INTEGER)")
    execute("CREATE TABLE history (account TEXT, count INTEGER, total INTEGER)")


def upgrade_to_2(old: Any) -> Tally2:
    """A row of schema 1."""
    return Tally2(int(old), 1)


def upgrade_to_3(old: Any) -> Tally3:
    """A row of schema 2, or of schema 1 that no worker has upgraded."""
    return Tally3(int(old), 1) if isinstance(old, int) else Tally3(old["count"], old["since"])


def latest_row(event: Event[str, Sum]) -> dict[str, object]:
    """A row for each key."""
    return {"account": event.key, "count": event.value.count, "total": event.value.total}


def history_row(event: Event[str, Sum]) -> dict[str, object]:
    """A row for each sum; a sum that is written twice has two rows."""
    return {"account": event.key, "count": event.value.count, "total": event.value.total}


local = make_app("local")
stored = make_app("stored")
journal = make_app("journal")
retired = make_app("retired")
successor = make_app("successor")
ledger = make_app("ledger")
for _name in os.environ.get("COMPAT_NAMES", "").split():
    globals()[_name.replace("-", "_")] = make_app(_name)
