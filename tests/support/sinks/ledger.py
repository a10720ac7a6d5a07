"""The app of worker processes under test: it writes each amount to three tables, two of which are not idempotent.

A row that is written twice is in `ledger` twice, and counts twice in `counts`. Names come from the environment, because
every test has its own topic on a shared broker, and its own database.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import App, Event, Postgres

PREFIX = os.environ.get("LEDGER_PREFIX", "ledger")
DSN = os.environ.get("LEDGER_DSN", "host=nowhere")

DDL = (
    "CREATE TABLE last (account text PRIMARY KEY, n bigint NOT NULL)",
    "CREATE TABLE ledger (id bigserial, account text, n bigint, part int, place bigint)",
    "CREATE TABLE counts (account text PRIMARY KEY, count bigint NOT NULL, total bigint NOT NULL)",
)


class Amount(msgspec.Struct, frozen=True):
    """An input."""

    n: int


def count(cursor: Any, events: Sequence[Event[str, Amount]]) -> None:
    """Add to the existing row: the statement is not idempotent."""
    cursor.executemany(
        "INSERT INTO counts VALUES (%s, 1, %s) ON CONFLICT (account) DO UPDATE "
        "SET count = counts.count + 1, total = counts.total + excluded.total",
        [(event.key, event.value.n) for event in events],
    )


app = App(PREFIX)
amounts = app.topic(f"{PREFIX}-amounts", key=str, value=Amount)
rows = app.group("rows", tasks=int(os.environ.get("LEDGER_TASKS", "0")) or None)
rows.sink(amounts, Postgres(DSN, "last", row=lambda e: {"account": e.key, "n": e.value.n}))
rows.sink(
    amounts,
    Postgres(
        DSN,
        "ledger",
        mode="append",
        row=lambda e: {"account": e.key, "n": e.value.n, "part": e.partition, "place": e.offset},
    ),
)
rows.sink(amounts, Postgres(DSN, write=count))
