"""Sums readings by windows of ten seconds of the time in the reading, and tells each new sum."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("tumbling-sums"), topic_partitions=2)


class Reading(faust.Record, coerce=True):  # type: ignore[call-arg]
    meter: str
    taken: datetime
    watts: int


class Sum(faust.Record):
    meter: str
    readings: int
    watts: int


readings = app.topic(name("readings"), key_type=str, value_type=Reading)
sums = app.topic(name("sums"), key_type=str, value_type=Sum)
totals = (
    app.Table("totals", key_type=str, value_type=int, default=int, partitions=2)
    .tumbling(10.0)
    .relative_to_field(Reading.taken)
)
each = (
    app.Table("each", key_type=str, default=list, partitions=2)
    .tumbling(10.0)
    .relative_to_field(Reading.taken)
)


@app.agent(readings)
async def add(stream: Any) -> None:
    async for reading in stream:
        totals[reading.meter] += reading.watts
        values = each[reading.meter].value()
        values.append(reading.watts)
        each[reading.meter] = values
        total = totals[reading.meter].value()
        await sums.send(key=reading.meter, value=Sum(reading.meter, len(values), total))
