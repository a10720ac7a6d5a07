"""Counts clicks in windows of a minute that start every twenty seconds, on the timestamps of the records."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("hopping-clicks"), topic_partitions=2)
clicks = app.topic(name("clicks"), key_type=str, value_type=int)
trends = app.topic(name("trends"), key_type=str, value_serializer="json")
# Faust expires windows by the clock of the machine, and the clicks are of 2024. Here, ten years are the longest time.
counts = app.Table("click-counts", key_type=str, value_type=int, default=int, partitions=2).hopping(
    timedelta(minutes=1), timedelta(seconds=20), expires=timedelta(days=3_650)
)


@app.agent(clicks)
async def count(stream: Any) -> None:
    async for key, number in stream.items():
        counts[key] += 1
        window = counts[key]
        await trends.send(
            key=key,
            value={
                "number": number,
                "now": window.now(),
                "current": window.current(),
                "minute_before": window.delta(timedelta(minutes=1)),
            },
        )
