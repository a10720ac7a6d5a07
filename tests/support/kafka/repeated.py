"""The app of `sums` for inputs that are sent repeatedly: each counts once, and duplicates go to a topic."""

from __future__ import annotations

from pipeline import App, Context, Dedup, Event
from tests.support.checker import made_from
from tests.support.kafka.sums import PREFIX, Amount, Sum

app = App(PREFIX)
dropped = app.topic(f"{PREFIX}-dropped", key=str, value=Amount)
amounts = app.topic(
    f"{PREFIX}-amounts", key=str, value=Amount, dedup=Dedup(ttl_s=24 * 3600, duplicates_to=dropped)
)
sums = app.topic(f"{PREFIX}-sums", key=str, value=Sum)
totals = app.table("totals", key=str, value=Sum)


@app.handler(amounts)
def add(event: Event[str, Amount], ctx: Context) -> None:
    """Add to the key's sum and publish it."""
    table = ctx.table(totals)
    before = table.get(event.key, Sum(0, 0))
    after = Sum(before.count + 1, before.total + event.value.n)
    table[event.key] = after
    ctx.send(sums, event.key, after, headers=made_from(f"{PREFIX}.main", event))
