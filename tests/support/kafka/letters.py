"""The app of `sums` with a handler that refuses every seventh input until $LETTERS_MENDED is set."""

from __future__ import annotations

import os

from pipeline import App, Context, Event
from tests.support.checker import made_from
from tests.support.kafka.sums import PREFIX, Amount, Sum

MENDED = "LETTERS_MENDED"
SKIPPING = "LETTERS_SKIPPING"  # a release without dead letters
EVERY = 7

app = App(PREFIX)
amounts = app.topic(f"{PREFIX}-amounts", key=str, value=Amount)
sums = app.topic(f"{PREFIX}-sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)


@app.handler(amounts, on_error="skip" if SKIPPING in os.environ else "dead_letter")
def add(event: Event[str, Amount], ctx: Context) -> None:
    """Add and publish, then raise, so that there are effects to undo."""
    table = ctx.table(totals)
    before = table.get(event.key, Sum(0, 0))
    after = Sum(before.count + 1, before.total + event.value.n)
    table[event.key] = after
    ctx.send(sums, event.key, after, headers=made_from(f"{PREFIX}.main", event))
    if event.value.n % EVERY == 0 and MENDED not in os.environ:
        raise ValueError(f"{event.value.n} cannot be added yet")
