"""Writes payments in batches, as a database with dear transactions would get them."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("batches"), topic_partitions=2)


class Payment(faust.Record):
    account: str
    number: int


payments = app.topic(name("payments"), key_type=str, value_type=Payment)
batches = app.topic(name("payment-batches"), value_serializer="json")


@app.agent(payments)
async def write(stream: Any) -> None:
    async for batch in stream.take(7, within=0.5):
        await batches.send(value=[[payment.account, payment.number] for payment in batch])
