"""The app after a producer that repeats events: it writes each event once to a topic, and then as a row to a database.

Names come from the environment, because the test has its own topics on a shared broker, and its own database.
"""

from __future__ import annotations

import os

from pipeline import App, Context, Dedup, Event, Postgres

PREFIX = os.environ.get("UNIQUE_PREFIX", "unique")
DSN = os.environ.get("UNIQUE_DSN", "host=nowhere")

app = App(PREFIX)
sent = app.topic(f"{PREFIX}-sent", key=str, value=int, dedup=Dedup(ttl_s=24 * 3600))
unique = app.topic(f"{PREFIX}-unique", key=str, value=int)


@app.handler(sent)
def pass_on(event: Event[str, int], ctx: Context) -> None:
    """Forward the events that the dedup table does not drop."""
    ctx.send(unique, event.key, event.value)


rows = app.group("rows")
rows.sink(
    unique,
    Postgres(DSN, "numbers", mode="append", row=lambda event: {"account": event.key, "n": event.value}),
)
