"""An app with a table that has a time-to-live. Its handler tells what it saw, so a test can compare it with a fold."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline import App, Context, Dedup, Event
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver
from tests.support.runtime.window_app import START_MS

__all__ = ["TTL_S", "ExpiringApp", "Seen"]

TTL_S = 60


class Seen(msgspec.Struct, frozen=True):
    """What the handler saw of an event before it wrote: the clock, the value of its key, and all rows."""

    number: int
    key: str
    op: str
    at_ms: int
    clock_ms: int
    value: int | None
    rows: dict[str, int]


class ExpiringApp:
    """The table `rows` of the values of the topic `events`; each event sends what it saw to `seen`.

    The value of an event is `OP NUMBER`. Ops: `set` writes without reading, `get` reads and writes, `read` only reads,
    `many` reads several keys at once and writes, `del` deletes, `fail` writes and fails.

    Args:
        ttl_s: The time-to-live; None: a plain table.
        mutable: Whether values are of a type that can change.
        other: Whether the topic `other` is another input, which does nothing.
        dedup: Whether events whose id was seen are dropped.
        options: Of the table.
    """

    def __init__(
        self,
        ttl_s: float | None = TTL_S,
        *,
        mutable: bool = False,
        other: bool = False,
        dedup: bool = False,
        **options: Any,
    ) -> None:
        self.app = app = App("expiring")
        self.mutable = mutable
        self.events = app.topic(
            "events",
            key=str,
            value=str,
            dedup=Dedup(ttl_s=3600) if dedup else None,
            event_time_ms=lambda event: (
                event.timestamp_ms
            ),  # so that the group has a clock without the table, too
        )
        self.other = app.topic("other", key=str, value=int)
        self.seen = app.topic("seen", key=str, value=Seen)
        value: Any = list[int] if mutable else int
        self.table: Any = app.table("rows", key=str, value=value, ttl_s=ttl_s, **options)
        app.handler(self.events, on_error="skip")(self.handle)
        if other:
            app.handler(self.other)(lambda _event, _ctx: None)

    def handle(self, event: Event[str, str], ctx: Context) -> None:
        op, _, text = event.value.partition(" ")
        number, table, key = int(text), ctx.table(self.table), event.key
        rows = {each: self.plain(value) for each, value in table.items()}
        value = None
        if op == "many":
            found = table.get_many([key, "absent"])
            value = self.plain(found[key]) if key in found else None
        elif op in {"get", "read"}:
            value = self.plain(table[key]) if key in table else None
        clock_ms = ctx.clock_ms
        seen = Seen(number, key, op, event.timestamp_ms, clock_ms, value, rows)
        ctx.send(self.seen, f"p{event.partition}", seen)
        if op == "del":
            if key in table:
                del table[key]
        elif op != "read":
            table[key] = [number] if self.mutable else number
        if op == "fail":
            raise ValueError("no")

    def plain(self, value: Any) -> int:
        number: int = value[0] if self.mutable else value
        return number

    def driver(self, **options: Any) -> TestDriver:
        settings = options.pop("settings", WorkerSettings(worker_id="test"))
        return TestDriver(self.app, settings=settings, **options)

    def stopped_driver(self) -> TestDriver:
        """A stopped worker, which has left the row `a` on disk that is over, and the rows `b` and `c` that are not."""
        driver = self.driver()
        driver.run()
        for key, number in (("a", 0), ("b", 30), ("c", 61)):
            self.send(driver, key, number)
        driver.step()
        driver.stop()
        return driver

    def send(
        self, driver: TestDriver, key: str, number: int, op: str = "get", at_s: float | None = None
    ) -> None:
        """`at_s`: the timestamp, in seconds after `START_MS`; default: the number."""
        at_ms = START_MS + int((number if at_s is None else at_s) * 1000)
        driver.send(self.events, key, f"{op} {number}", timestamp_ms=at_ms)

    def values(self, driver: TestDriver) -> list[int | None]:
        """What each event saw of its key."""
        return [event.value.value for event in driver.outputs(self.seen)]

    def stored(self, driver: TestDriver) -> dict[str, int]:
        """Visible rows on disk."""
        return {key: self.plain(value) for key, value in driver.table(self.table).items()}

    def kept(self, driver: TestDriver) -> int:
        """The number of all rows on disk, without those of clocks: hidden ones and entries of the index, too."""
        contents = [driver.stores.contents(task) for task in driver.stores.positions()]
        return sum(not key.endswith(b"\x00tc") for rows in contents for key in rows)
