"""An app with one set of timers, which logs each record and each due timer, and the check of such a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline import App, Batch, Context, Event, FiredTimer
from pipeline.config import WorkerSettings
from pipeline.testing import TestDriver

__all__ = ["AGAIN_S", "START_MS", "Happened", "Order", "TimerApp", "TimerFold"]

START_MS = 1_700_000_000_000 - 1_700_000_000_000 % 3_600_000 - 3_600_000  # an hour before the driver's clock
AGAIN_S = 7  # a timer whose key begins with `again` is set once more, so long after its due time, up to AGAIN_UNTIL_S
AGAIN_UNTIL_S = 200


class Order(msgspec.Struct, frozen=True):
    """A record: it sets the timer of a key for a second after `START_MS`, or cancels it (None). No key: neither."""

    number: int
    key: str = ""
    due_s: int | None = None


class Happened(msgspec.Struct, frozen=True):
    """An output. A record has a number, a timer a key and its due second. `clock_s`: the clock that its function saw.

    `first`: the number of the first record of the batch. `fired`: how many timers had fired before, as a table says.
    """

    clock_ms: int
    fired: int
    number: int = -1
    first: int = -1
    key: str = ""
    due_ms: int = -1


class TimerApp:
    """The timers `alarms`, set by the topic `orders`; all that happens goes to `log`, under the key of the order."""

    def __init__(self, *, batch: bool = False, prefix: str = "", **options: Any) -> None:
        self.app = app = App(f"{prefix}timers")
        self.orders = app.topic(f"{prefix}orders", key=str, value=Order)
        self.log = app.topic(f"{prefix}log", key=str, value=Happened)
        self.alarms = app.timers("alarms", key=str)
        self.fired = app.table("fired", key=str, value=int)
        self.sent: list[tuple[int, Order]] = []  # by partition
        self.calls: list[tuple[str, int]] = []  # key and due second, also of attempts that failed
        self.effect_keys: list[str] = []
        self.broken: set[str] = set()  # keys whose timers raise
        if batch:
            app.batch_handler(self.orders)(self.take_all)
        else:
            app.handler(self.orders)(self.take)
        app.on_timer(self.alarms, **options)(self.fire)

    def take(self, event: Event[str, Order], ctx: Context, first: int | None = None) -> None:
        order = event.value
        alarms = ctx.timers(self.alarms)
        if order.key and order.due_s is not None:
            alarms[order.key] = START_MS + order.due_s * 1000
        elif order.key:
            alarms.pop(order.key, None)
        fired = ctx.table(self.fired).get("all", 0)
        number = order.number
        ctx.send(
            self.log,
            event.key,
            Happened(ctx.clock_ms, fired, number=number, first=number if first is None else first),
        )

    def take_all(self, batch: Batch[str, Order], ctx: Context) -> None:
        for event in batch:
            self.take(event, ctx, batch.values[0].number)

    def fire(self, timer: FiredTimer[str], ctx: Context) -> None:
        self.calls.append((timer.key, (timer.due_ms - START_MS) // 1000))
        fired = ctx.table(self.fired)
        fired["all"] = number = fired.get("all", 0) + 1
        alarms = ctx.timers(self.alarms)
        assert timer.key not in alarms
        if timer.key.startswith("again") and timer.due_ms < START_MS + AGAIN_UNTIL_S * 1000:
            alarms[timer.key] = timer.due_ms + AGAIN_S * 1000
        if timer.key in self.broken:
            raise ValueError("no")
        self.effect_keys += [timer.effect_key(), timer.effect_key(1)]
        ctx.send(
            self.log, timer.key[-1:], Happened(ctx.clock_ms, number - 1, key=timer.key, due_ms=timer.due_ms)
        )

    def driver(self, **options: Any) -> TestDriver:
        settings = options.pop("settings", WorkerSettings(worker_id="test"))
        return TestDriver(self.app, settings=settings, **options)

    def send(
        self, driver: TestDriver, at_s: float, key: str = "", due_s: int | None = None, partition: int = 0
    ) -> None:
        """An order with a timestamp in seconds after `START_MS`. The last character of `key` is the partition."""
        order = Order(len(self.sent), key, due_s)
        self.sent.append((partition, order))
        driver.send(
            self.orders,
            str(partition),
            order,
            timestamp_ms=START_MS + int(at_s * 1000),
            partition=partition,
        )

    def happened(self, driver: TestDriver, partition: int = 0) -> list[Happened]:
        """What happened in a partition, in order."""
        return [event.value for event in driver.outputs(self.log) if event.key == str(partition)]

    def shown(self, driver: TestDriver, partition: int = 0) -> list[int | tuple[str, int]]:
        """The same in short: numbers of records, and keys with due seconds of timers."""
        return [
            (each.key, (each.due_ms - START_MS) // 1000) if each.key else each.number
            for each in self.happened(driver, partition)
        ]

    def armed(self, driver: TestDriver) -> dict[str, int]:
        """The due seconds of the timers that are set."""
        return {key: (due_ms - START_MS) // 1000 for key, due_ms in driver.timers(self.alarms).items()}


class TimerFold:
    """Checks what happened in one partition against its records: which timers fire, when, and in which order.

    Independent of the runtime. The clock that each function saw is taken as given. A timer that is set by another one
    for a time that the clock has reached may fire at any later moment, because it waits for a commit. `broken`: keys of
    timers whose function raises, which leave no output.
    """

    def __init__(self, broken: frozenset[str] = frozenset()) -> None:
        self.armed: dict[str, int] = {}
        self.waiting: dict[str, int] = {}  # those that wait for a commit
        self.broken = broken
        self.failed: list[tuple[str, int]] = []
        self.fired = 0

    def check(self, happened: Sequence[Happened], orders: Mapping[int, Order]) -> None:
        """`orders`: the records of the partition in order, by number. All are processed, and all timers have fired."""
        expected = iter(orders.values())
        for each in happened:
            assert each.fired <= self.fired
            if each.key:
                self._fire(each)
                continue
            order = next(expected)
            assert each.number == order.number
            if each.number == each.first:
                self._fail(each.clock_ms)
                assert all(due_ms > each.clock_ms for due_ms in self.armed.values()), (each, self.armed)
            self._take(order)
        assert next(expected, None) is None
        self._fail(2**63)
        assert not self.armed
        assert not self.waiting

    def _take(self, order: Order) -> None:
        if not order.key:
            return
        self.armed.pop(order.key, None)
        self.waiting.pop(order.key, None)
        if order.due_s is not None:
            self.armed[order.key] = START_MS + order.due_s * 1000

    def _fire(self, each: Happened) -> None:
        key, due_ms, clock_ms = each.key, each.due_ms, each.clock_ms
        assert due_ms <= clock_ms
        if self.waiting.get(key) == due_ms:
            del self.waiting[key]
        else:
            self._fail(clock_ms, (due_ms, key))
            assert self.armed.pop(key) == due_ms
            assert all((due_ms, key) < (other_ms, other) for other, other_ms in self.armed.items())
        self.fired += 1
        if key.startswith("again") and due_ms < START_MS + AGAIN_UNTIL_S * 1000:
            next_ms = due_ms + AGAIN_S * 1000
            (self.armed if next_ms > clock_ms else self.waiting)[key] = next_ms

    def _fail(self, clock_ms: int, until: tuple[int, str] = (2**63, "")) -> None:
        """The timers that raise, and are due before the one that fires next."""
        for due_ms, key in sorted((due_ms, key) for key, due_ms in self.armed.items() if key in self.broken):
            if due_ms <= clock_ms and (due_ms, key) < until:
                del self.armed[key]
                self.failed.append((key, due_ms))
