"""`Shop`: an app whose input decides the outcome of its records, with a scraper of its metrics."""

from __future__ import annotations

from pipeline import App, Context, Dedup, Event
from pipeline.core.names import TaskId
from pipeline.ports import Step
from pipeline.testing import TestDriver
from tests.support.http.scrape import Scraper

TTL_S = 60
SKIPPED, LETTER, RETRIED = -1, -2, -3


class Shop:
    """An app whose input decides the outcome. `calls`: the values that handlers were called with."""

    def __init__(self) -> None:
        self.app = App("shop")
        self.orders = self.app.topic("orders", key=str, value=int, dedup=Dedup(ttl_s=TTL_S))
        self.gifts = self.app.topic("gifts", key=str, value=int)
        self.outs = self.app.topic("outs", key=str, value=int)
        self.calls: list[int] = []
        self.failing = {SKIPPED, LETTER}
        self.app.handler(self.orders, on_error="dead_letter", retries=2)(self.handle)
        self.app.handler(self.gifts, on_error="skip")(self.handle)
        self.driver = TestDriver(self.app)
        self.scrape = Scraper(self.driver)
        self._ids = 0

    def handle(self, event: Event[str, int], ctx: Context) -> None:
        self.calls.append(event.value)
        ctx.send(self.outs, event.key, event.value)
        if event.value in self.failing or (event.value == RETRIED and self.calls.count(RETRIED) < 2):
            raise ValueError("as ordered")

    def order(self, value: int, *, event_id: bytes | None = None) -> None:
        self._ids += 1
        self.driver.send(self.orders, "a", value, event_id=event_id or b"%d" % self._ids)


def advance_at(driver: TestDriver, step: Step, seconds: float) -> None:
    """Let time pass whenever a step is reached."""
    reached = driver._steps.reached

    def slowly(now: Step, task: TaskId) -> None:
        if now is step:
            driver.clock.advance(seconds)
        reached(now, task)

    driver._steps.reached = slowly  # type: ignore[method-assign,assignment]
