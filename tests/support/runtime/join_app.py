"""An app with one join, which says what it was called with, and the expected results of any input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline import App, Context, Event
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver
from tests.support.runtime.window_app import START_MS

__all__ = ["GRACE_S", "WITHIN_S", "JoinApp", "JoinFold"]

WITHIN_S, GRACE_S = 20, 5


class JoinApp:
    """The join `pairs` of `orders` and `payments`: pairs go to `matched`, other events to `unmatched`, as text.

    Each order or payment has a number. With `seen`, another handler sends the number and the clock of each event to the
    topic `seen`, before it is joined.
    """

    def __init__(
        self, *, within_s: float = WITHIN_S, grace_s: float = GRACE_S, seen: bool = False, **options: Any
    ) -> None:
        self.app = app = App("joins")
        self.orders = app.topic("orders", key=str, value=int)
        self.payments = app.topic("payments", key=str, value=int)
        self.matched = app.topic("matched", key=str, value=tuple[int, int])
        self.unmatched = app.topic("unmatched", key=str, value=tuple[str, int])
        self.seen = app.topic("seen", key=str, value=tuple[str, int, int])
        self.broken: set[int] = set()  # numbers of events whose calls fail
        self.effect_keys: list[str] = []
        if seen:
            app.handler(self.orders)(self._saw("left"))
            app.handler(self.payments)(self._saw("right"))
        self.join = app.join(
            "pairs", self.orders, self.payments, within_s=within_s, grace_s=grace_s, **options
        )
        self.join.on_match(self.match)
        self.join.on_unmatched_left(self.no_payment)
        self.join.on_unmatched_right(self.no_order)

    def _saw(self, side: str) -> Any:
        def saw(event: Event[str, int], ctx: Context) -> None:
            ctx.send(self.seen, event.key, (side, event.value, ctx.clock_ms))

        return saw

    def match(self, order: Event[str, int], payment: Event[str, int], ctx: Context) -> None:
        ctx.send(self.matched, order.key, (order.value, payment.value))
        if self.broken.intersection((order.value, payment.value)):
            raise ValueError("no")

    def no_payment(self, order: Event[str, int], ctx: Context) -> None:
        self._alone("left", order, ctx)

    def no_order(self, payment: Event[str, int], ctx: Context) -> None:
        self._alone("right", payment, ctx)

    def _alone(self, side: str, event: Event[str, int], ctx: Context) -> None:
        ctx.send(self.unmatched, event.key, (side, event.value))
        self.effect_keys.append(event.effect_key())
        if event.value in self.broken:
            raise ValueError("no")

    def driver(self, **options: Any) -> TestDriver:
        settings = options.pop("settings", WorkerSettings(worker_id="test"))
        return TestDriver(self.app, settings=settings, **options)

    def order(self, driver: TestDriver, key: str, number: int, at_s: float) -> None:
        """`at_s`: seconds after `START_MS`."""
        driver.send(self.orders, key, number, timestamp_ms=START_MS + int(at_s * 1000))

    def pay(self, driver: TestDriver, key: str, number: int, at_s: float) -> None:
        driver.send(self.payments, key, number, timestamp_ms=START_MS + int(at_s * 1000))

    def pairs(self, driver: TestDriver) -> list[tuple[int, int]]:
        """The numbers of each pair, in order per partition."""
        return [event.value for event in driver.outputs(self.matched)]

    def alone(self, driver: TestDriver) -> list[tuple[str, int]]:
        """Side and number of each unmatched event, in order per partition."""
        return [event.value for event in driver.outputs(self.unmatched)]


@dataclass
class JoinFold:
    """Pairs and unmatched events of one key, from the events and the clocks at which they were handled."""

    within_ms: int
    grace_ms: int
    pairs: list[tuple[int, int]] = field(default_factory=list)
    _events: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, side: str, number: int, at_ms: int, clock_ms: int) -> None:
        """An event that was handled when the clock of its partition was at this time."""
        for other, partner, other_ms in self._events:
            waits = other_ms + self.within_ms + self.grace_ms >= clock_ms
            if other != side and waits and abs(other_ms - at_ms) <= self.within_ms:
                self.pairs.append((number, partner) if side == "left" else (partner, number))
        self._events.append((side, number, at_ms))

    def alone(self) -> Iterable[tuple[str, int]]:
        """The events without a partner."""
        for side, number, _ in self._events:
            if not any(number == pair[side == "right"] for pair in self.pairs):
                yield side, number
