"""An application of Faust that adds up orders, for workers of Faust and for ours. It reads its names on import."""

from __future__ import annotations

import os
from typing import Any

import faust

app = faust.App(
    os.environ["SHOP"],
    broker=f"kafka://{os.environ['SHOP_KAFKA']}",
    datadir=os.environ["SHOP_DATA"],
    processing_guarantee=os.environ.get("SHOP_GUARANTEE", "at_least_once"),
    topic_partitions=4,
    topic_replication_factor=1,
    broker_commit_interval=0.5,
    web_enabled=False,
)


class Order(faust.Record):
    customer: str
    cents: int


orders = app.topic(f"{app.conf.id}-orders", key_type=str, value_type=Order, partitions=4)
sums = app.topic(f"{app.conf.id}-sums", key_type=str, value_type=int, partitions=4)
totals = app.Table("totals", key_type=str, value_type=int, default=int)
last = app.Table("last", key_type=str, value_type=Order)
seen = app.SetTable("seen", key_type=str, value_type=int)


@app.agent(orders)
async def add(stream: Any) -> None:
    """The total of each customer; every tenth order deletes the row of the last one."""
    async for customer, order in stream.items():
        totals[customer] += order.cents
        seen[customer].add(order.cents)
        if order.cents % 10:
            last[customer] = order
        else:
            last.pop(customer, None)
        await sums.send(key=customer, value=totals[customer])
