"""Sums orders by product through a topic of its own, and by shop, which a function computes."""

from __future__ import annotations

from typing import Any

import faust

from tests.support.faust.naming import name

app = faust.App(name("product-totals"), topic_partitions=2)


class Order(faust.Record):
    customer: str
    product: str
    amount: int


def shop_of(order: Order) -> str:
    """Customers of a shop share the first character."""
    return order.customer[0]


orders = app.topic(name("orders"), key_type=str, value_type=Order)
copies = app.topic(name("copied-orders"), key_type=str, value_type=Order, partitions=2)
products = app.Table("products", key_type=str, value_type=int, default=int, partitions=2)
shops = app.Table("shops", key_type=str, value_type=int, default=int, partitions=2)
large_counts = app.Table("large-counts", key_type=str, value_type=int, default=int, partitions=2)


@app.agent(orders)
async def by_product(stream: Any) -> None:
    async for order in stream.group_by(Order.product):
        products[order.product] += order.amount


@app.agent(orders)
async def by_shop(stream: Any) -> None:
    async for order in stream.group_by(shop_of, name="shop"):
        shops[shop_of(order)] += order.amount


@app.agent(orders)
async def count_large(stream: Any) -> None:
    # Faust applies a filter behind the topic, wherever it is written.
    async for order in stream.filter(lambda order: order.amount >= 50).through(copies):
        large_counts[order.customer] += 1
