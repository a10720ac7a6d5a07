"""An app with every kind of state: tables, one with a time-to-live, windows, sessions, a history, a join, timers."""

from __future__ import annotations

import msgspec

from pipeline import App, Context, Event, FiredTimer, Hopping, Sessions, Tumbling
from pipeline.testing import TestDriver

__all__ = ["START_MS", "EveryKind", "Payment"]

START_MS = 1_699_999_200_000  # a full hour before the driver's clock
HOUR_S = 3600


class Payment(msgspec.Struct, frozen=True):
    """A payment, `at_s` seconds after `START_MS`."""

    cents: int
    at_s: int


class EveryKind:
    """Each payment of the topic `payments` is added to everything under its key. `suffix`: of all names in Kafka."""

    def __init__(self, suffix: str = "") -> None:
        self.app = app = App(f"kinds{suffix}")
        self.payments = app.topic(f"payments{suffix}", key=str, value=Payment, event_time_ms=_time)
        self.orders = app.topic(f"orders{suffix}", key=str, value=Payment, event_time_ms=_time)
        self.totals = app.table("totals", key=str, value=int)
        self.last = app.table("last", key=str, value=int, ttl_s=HOUR_S)
        self.minutes = app.window("minutes", key=str, value=int, size=Tumbling(60), grace_s=10, default=0)
        self.hops = app.window(
            "hops", key=str, value=int, size=Hopping(60, every_s=30), grace_s=10, default=0
        )
        self.visits = app.window(
            "visits", key=str, value=int, size=Sessions(20, merge=int.__add__), grace_s=10, default=0
        )
        self.recent = app.history("recent", key=str, value=int, keep_s=120)
        self.paid = app.join("paid", self.orders, self.payments, within_s=30, grace_s=10)
        self.alarms = app.timers("alarms", key=str)
        app.handler(self.payments)(self.take)
        app.on_timer(self.alarms)(self.fire)

    def take(self, event: Event[str, Payment], ctx: Context) -> None:
        cents, key = event.value.cents, event.key
        totals = ctx.table(self.totals)
        totals[key] = totals.get(key, 0) + cents
        ctx.table(self.last)[key] = cents
        for window in (self.minutes, self.hops, self.visits):
            for row in ctx.window(window).rows(event):
                row.value += cents
        ctx.history(self.recent).add(event, cents)
        ctx.timers(self.alarms)[key] = START_MS + (event.value.at_s + 100) * 1000

    def fire(self, timer: FiredTimer[str], ctx: Context) -> None:
        """Nothing."""

    def send(self, driver: TestDriver, *payments: tuple[str, int, int]) -> None:
        """Payments of these keys, cents and seconds, with an order of a cent at the first time."""
        self.put(driver, *payments)
        driver.run()

    def put(self, driver: TestDriver, *payments: tuple[str, int, int]) -> None:
        """The same, without processing them."""
        driver.clock.set_wall_ms(max(driver.clock.wall_ms(), START_MS + 3_600_000))
        driver.send(self.orders, payments[0][0], Payment(1, payments[0][2]))
        for key, cents, at_s in payments:
            driver.send(self.payments, key, Payment(cents, at_s))


def _time(event: Event[str, Payment]) -> int:
    return START_MS + event.value.at_s * 1000
