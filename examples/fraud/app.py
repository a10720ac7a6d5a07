"""An alert when the payments of an account in five minutes are above a limit: once for each window.

    card-payments -> revenue (five minutes, a new window each minute) -> fraud-alerts (at once)
                                                                      -> late-card-payments (if the windows were closed)

A new window begins each minute, so payments within four minutes are always together in a window. With windows one after
the other, the payments of a minute could be divided between two.

Run it with: pipeline worker examples.fraud.app:app --topics-dir examples/fraud/topics
"""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event, Hopping

LIMIT_CENTS = 100_000


class Payment(msgspec.Struct, frozen=True):
    """What was paid, and when."""

    cents: int
    at_ms: int


class Revenue(msgspec.Struct, frozen=True):
    """The payments of an account in a window."""

    payments: int = 0
    cents: int = 0


class Alert(msgspec.Struct, frozen=True):
    """The window whose revenue is above the limit, and its revenue at that time."""

    start_ms: int
    end_ms: int
    revenue: Revenue


app = App("fraud")
payments = app.topic(
    "card-payments", key=str, value=Payment, event_time_ms=lambda event: event.value.at_ms
)  # by account
alerts = app.topic("fraud-alerts", key=str, value=Alert)
late_payments = app.topic("late-card-payments", key=str, value=Payment)

revenue = app.window(
    "revenue",
    key=str,
    value=Revenue,
    size=Hopping(300, every_s=60),
    grace_s=60,
    default=Revenue(),
    late_to=late_payments,
)


@app.handler(payments)
def paid(event: Event[str, Payment], ctx: Context) -> None:
    """Add a payment to its windows. The payment that passes the limit of a window sends its alert."""
    for row in ctx.window(revenue).rows(event):
        before = row.value
        row.value = after = Revenue(before.payments + 1, before.cents + event.value.cents)
        if after.cents > LIMIT_CENTS >= before.cents:
            ctx.send(alerts, event.key, Alert(row.start_ms, row.end_ms, after))
