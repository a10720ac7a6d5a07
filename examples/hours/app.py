"""What each customer has ordered in each hour, by the time of the order.

    hour-orders -> hourly window -> hour-totals (when the hour is over)
                                 -> big-spenders (at once)
                                 -> late-orders (if the hour was over already)

Run it with: pipeline worker examples.hours.app:app --topics-dir examples/hours/topics
"""

from __future__ import annotations

import msgspec

from pipeline import App, ClosedWindow, Context, Event, Tumbling

LIMIT_CENTS = 100_000


class Order(msgspec.Struct, frozen=True):
    """What a customer has ordered, and when."""

    cents: int
    at_ms: int


class Total(msgspec.Struct, frozen=True):
    """The orders of a customer in an hour."""

    orders: int = 0
    cents: int = 0


class HourTotal(msgspec.Struct, frozen=True):
    """A total, and the start of its hour."""

    start_ms: int
    total: Total


app = App("hours")
orders = app.topic(
    "hour-orders", key=str, value=Order, event_time_ms=lambda event: event.value.at_ms
)  # by customer
hour_totals = app.topic("hour-totals", key=str, value=HourTotal)
big_spenders = app.topic("big-spenders", key=str, value=Total)
late_orders = app.topic("late-orders", key=str, value=Order)

hourly = app.window(
    "hourly",
    key=str,
    value=Total,
    size=Tumbling(3600),
    grace_s=60,
    default=Total(),
    late_to=late_orders,
)


@app.handler(orders)
def ordered(event: Event[str, Order], ctx: Context) -> None:
    """Add an order to its hour, and report the customer once the limit is passed."""
    for row in ctx.window(hourly).rows(event):
        before = row.value
        row.value = after = Total(before.orders + 1, before.cents + event.value.cents)
        if after.cents > LIMIT_CENTS >= before.cents:
            ctx.send(big_spenders, event.key, after)


@app.on_close(hourly)
def over(hour: ClosedWindow[str, Total], ctx: Context) -> None:
    """Publish what a customer has ordered in an hour that is over."""
    ctx.send(hour_totals, hour.key, HourTotal(hour.start_ms, hour.value))
