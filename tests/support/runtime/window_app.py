"""An app with one window, which collects the numbers of its events, and the expected results of any input."""

from __future__ import annotations

from typing import Any

from pipeline import App, Batch, ClosedWindow, Context, Event, Hopping, Sessions, Tumbling
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver

__all__ = ["SIZE_S", "START_MS", "Numbers", "WindowApp", "joined"]

SIZE_S = 60
START_MS = 1_700_000_000_000 - 1_700_000_000_000 % 3_600_000 - 3_600_000  # an hour before the driver's clock
Numbers = tuple[int, ...]


def joined(earlier: Numbers, later: Numbers) -> Numbers:
    """The value of two sessions that become one."""
    return earlier + later


class WindowApp:
    """The window `numbers` over the topic `events`: a closed one goes to `closed`, late events to `late`.

    Args:
        size: The size of the window.
        grace_s: Its grace.
        batch: Whether the handler takes batches.
        timed: Whether the value is the event time, in seconds after `START_MS`.
        other: Whether the topic `other` is another input, which does nothing.
        seen: Whether the topic `seen` gets each event's value, and the clock at which it was handled.
    """

    def __init__(
        self,
        size: Tumbling | Hopping | Sessions[Numbers] | None = None,
        *,
        grace_s: float = 10,
        batch: bool = False,
        timed: bool = False,
        other: bool = False,
        late: bool = True,
        seen: bool = False,
        **options: Any,
    ) -> None:
        self.app = app = App("windows")
        event_time_ms = (lambda event: START_MS + event.value * 1000) if timed else None
        self.events = app.topic("events", key=str, value=int, event_time_ms=event_time_ms)
        self.other = app.topic("other", key=str, value=int)
        self.closed = app.topic("closed", key=str, value=Numbers)
        self.late = app.topic("late", key=str, value=int)
        self.seen = app.topic("seen", key=str, value=tuple[int, int]) if seen else None
        self.window = app.window(
            "numbers",
            key=str,
            value=Numbers,
            size=size if size is not None else Tumbling(SIZE_S),
            grace_s=grace_s,
            default=(),
            late_to=self.late if late else None,
        )
        self.calls: list[str] = []  # keys of closed windows, also of attempts that failed
        self.effect_keys: list[str] = []
        self.broken: set[str] = set()  # keys whose windows cannot be closed
        if batch:
            app.batch_handler(self.events)(self.collect_all)
        else:
            app.handler(self.events)(self.collect)
        if other:
            app.handler(self.other)(lambda _event, _ctx: None)
        app.on_close(self.window, **options)(self.close)

    def collect(self, event: Event[str, int], ctx: Context) -> None:
        if self.seen is not None:
            ctx.send(self.seen, event.key, (event.value, ctx.clock_ms))
        for row in ctx.window(self.window).rows(event):
            row.value = (*row.value, event.value)

    def collect_all(self, batch: Batch[str, int], ctx: Context) -> None:
        for event in batch:
            self.collect(event, ctx)

    def close(self, window: ClosedWindow[str, Numbers], ctx: Context) -> None:
        self.calls.append(window.key)
        if window.key in self.broken:
            raise ValueError("no")
        self.effect_keys += [window.effect_key(), window.effect_key(1)]
        start = str(window.start_ms).encode()
        ctx.send(self.closed, window.key, window.value, headers=[("start", start)])

    def driver(self, **options: Any) -> TestDriver:
        settings = options.pop("settings", WorkerSettings(worker_id="test"))
        return TestDriver(self.app, settings=settings, **options)

    def send(self, driver: TestDriver, key: str, value: int, at_s: float | None = None) -> None:
        """`at_s`: the timestamp, in seconds after `START_MS`; default: the value."""
        at_ms = START_MS + int((value if at_s is None else at_s) * 1000)
        driver.send(self.events, key, value, timestamp_ms=at_ms)

    def results(self, driver: TestDriver) -> list[tuple[str, int, Numbers]]:
        """Key, start in seconds after `START_MS` and value of each window that was closed, in order per partition."""
        return [
            (event.key, (int(dict(event.headers)["start"] or b"") - START_MS) // 1000, event.value)
            for event in driver.outputs(self.closed)
        ]

    def late_values(self, driver: TestDriver) -> list[int]:
        return [event.value for event in driver.outputs(self.late)]
