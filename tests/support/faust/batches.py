"""The sums of `sums.py` again, behind a repartition topic and in batches: the same outputs for each key."""

from __future__ import annotations

import os
from typing import Any

import faust

PREFIX = os.environ.get("SUMS_PREFIX", "sums")


class Amount(faust.Record):
    """An input."""

    n: int


app = faust.App(PREFIX)
amounts = app.topic(f"{PREFIX}-amounts", key_type=bytes, value_type=Amount)
sums = app.topic(f"{PREFIX}-sums", key_type=bytes)
totals = app.Table("totals", default=lambda: [0, 0])


def key_of(amount: Amount) -> str:
    """The key that `Workbench.send` gives the input."""
    return f"key-{amount.n * 7 % 20}"


@app.agent(amounts)
async def add(stream: Any) -> None:
    """Add a batch to the sums of its keys, and publish each of them."""
    async for batch in stream.group_by(key_of, name="key").take_events(7, within=1):
        for event in batch:
            key = event.key.decode()
            count, total = totals[key]
            totals[key] = [count + 1, total + event.value.n]
            await sums.send(key=event.key, value={"count": count + 1, "total": total + event.value.n})
