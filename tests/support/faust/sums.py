"""The sums app of `tests/support/kafka/sums.py`, written for Faust: the same topics, outputs and rows."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import faust

from tests.support.checker import made_from

PREFIX = os.environ.get("SUMS_PREFIX", "sums")


class Amount(faust.Record):
    """An input."""

    n: int


app = faust.App(PREFIX)
amounts = app.topic(f"{PREFIX}-amounts", key_type=bytes, value_type=Amount)
sums = app.topic(f"{PREFIX}-sums", key_type=bytes)
totals = app.Table("totals", key_type=bytes, default=lambda: {"count": 0, "total": 0})


@app.agent(amounts)
async def add(stream: Any) -> None:
    """Add to the key's sum and publish it. Some events wait, and some change the row in place."""
    async for event in stream.events():
        total = totals[event.key]
        if event.value.n % 50 == 0:
            await asyncio.sleep(0.001)
        total["count"] += 1
        total["total"] += event.value.n
        if total["count"] == 1:
            totals[event.key] = total
        await sums.send(key=event.key, value=total, headers=dict(made_from(f"{PREFIX}.main", event.message)))
