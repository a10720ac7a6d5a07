"""Orders and their payments: a join, with an alert for orders that are not paid within ten minutes.

    shop-orders   -\
                    join -> settled-orders (an order with its payment)
    shop-payments -/     -> unpaid-orders (no payment within ten minutes)
                         -> refunds (a payment without an order)

Run it with: pipeline worker examples.payments.app:app --topics-dir examples/payments/topics
"""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event


class Order(msgspec.Struct, frozen=True):
    """What was ordered, and when."""

    customer: str
    cents: int
    at_ms: int


class Payment(msgspec.Struct, frozen=True):
    """What was paid for an order, and when."""

    cents: int
    at_ms: int


class Settled(msgspec.Struct, frozen=True):
    """An order that was paid. `open_cents`: what is missing; below 0 if too much was paid."""

    customer: str
    open_cents: int


app = App("payments")
orders = app.topic(
    "shop-orders", key=str, value=Order, event_time_ms=lambda event: event.value.at_ms
)  # by order
payments = app.topic(
    "shop-payments", key=str, value=Payment, event_time_ms=lambda event: event.value.at_ms
)  # by order
settled = app.topic("settled-orders", key=str, value=Settled)
unpaid_orders = app.topic("unpaid-orders", key=str, value=Order)
refunds = app.topic("refunds", key=str, value=Payment)

paid = app.join("paid", orders, payments, within_s=600, grace_s=60, on_error="dead_letter", retries=3)


@paid.on_match
def settle(order: Event[str, Order], payment: Event[str, Payment], ctx: Context) -> None:
    """Publish an order with its payment."""
    ctx.send(settled, order.key, Settled(order.value.customer, order.value.cents - payment.value.cents))


@paid.on_unmatched_left
def alert(order: Event[str, Order], ctx: Context) -> None:
    """Publish an order that was not paid in time."""
    ctx.send(unpaid_orders, order.key, order.value)


@paid.on_unmatched_right
def refund(payment: Event[str, Payment], ctx: Context) -> None:
    """Publish a payment of an order that does not exist, or of one that was made long before."""
    ctx.send(refunds, payment.key, payment.value)
