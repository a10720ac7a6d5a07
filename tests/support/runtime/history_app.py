"""An app with one history, whose handler tells what it saw, so that a test can compare it with a fold."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline import App, Batch, ClosedWindow, Context, Event, Tumbling
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver
from tests.support.runtime.window_app import START_MS

__all__ = ["KEEP_S", "HistoryApp", "Seen"]

KEEP_S = 60


class Seen(msgspec.Struct, frozen=True):
    """What the handler saw of an event: the clock, whether its value was added, and the values of half a minute."""

    number: int
    at_ms: int
    clock_ms: int
    added: bool
    values: list[tuple[int, int]]


class HistoryApp:
    """The history `numbers` of the values of the topic `events`; each event sends what it saw to `seen`.

    Args:
        keep_s: How long a value is kept.
        other: Whether the topic `other` is another input, which does nothing.
        batch: Whether the handler takes batches.
        closes: Whether the ends of a window of ten seconds add the value -1.
    """

    def __init__(
        self,
        *,
        keep_s: float = KEEP_S,
        other: bool = False,
        batch: bool = False,
        closes: bool = False,
        on_error: Any = "stop",
        **options: Any,
    ) -> None:
        self.app = app = App("histories")
        self.events = app.topic("events", key=str, value=int)
        self.other = app.topic("other", key=str, value=int)
        self.seen = app.topic("seen", key=str, value=Seen)
        self.history = app.history("numbers", key=str, value=int, keep_s=keep_s, **options)
        self.broken: set[int] = set()  # values whose records fail after they were added
        if batch:
            app.batch_handler(self.events, on_error=on_error)(self.collect_all)
        else:
            app.handler(self.events, on_error=on_error)(self.collect)
        if other:
            app.handler(self.other)(lambda _event, _ctx: None)
        if closes:
            self.window = app.window("tens", key=str, value=int, size=Tumbling(10), grace_s=0, default=0)
            app.handler(self.events)(self.count)
            app.on_close(self.window)(self.close)

    def collect(self, event: Event[str, int], ctx: Context) -> None:
        history = ctx.history(self.history)
        added = history.add(event, event.value)
        at_ms = event.timestamp_ms
        values = list(history.between(event.key, at_ms - 30_000, at_ms))
        ctx.send(self.seen, event.key, Seen(event.value, at_ms, ctx.clock_ms, added, values))
        if event.value in self.broken:
            raise ValueError("no")

    def collect_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.collect(event, ctx)

    def count(self, event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(self.window).rows(event):
            row.value += 1

    def close(self, window: ClosedWindow[str, int], ctx: Context) -> None:
        ctx.history(self.history).add(window, -1)  # type: ignore[call-overload]  # as a program without types

    def driver(self, **options: Any) -> TestDriver:
        settings = options.pop("settings", WorkerSettings(worker_id="test"))
        return TestDriver(self.app, settings=settings, **options)

    def send(self, driver: TestDriver, key: str, value: int, at_s: float | None = None) -> None:
        """`at_s`: the timestamp, in seconds after `START_MS`; default: the value."""
        at_ms = START_MS + int((value if at_s is None else at_s) * 1000)
        driver.send(self.events, key, value, timestamp_ms=at_ms)

    def read(self, driver: TestDriver) -> list[list[int]]:
        """The values that each event saw, in order."""
        return [[value for _, value in event.value.values] for event in driver.outputs(self.seen)]

    def added(self, driver: TestDriver) -> list[bool]:
        return [event.value.added for event in driver.outputs(self.seen)]

    def stored(self, driver: TestDriver, key: str = "a") -> list[tuple[int, int]]:
        """The values of a key on disk, with seconds after `START_MS`."""
        return [
            ((at_ms - START_MS) // 1000, value) for at_ms, value in driver.history(self.history).get(key, [])
        ]
