"""Tables with a time-to-live: what is hidden when, when rows are deleted, and what happens around crashes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline import App, Batch, ClosedWindow, Context, Event, Tick, Tumbling
from pipeline.api.expiring_rows import RuntimeExpiringTable
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, rows_of
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, CorruptStateError
from pipeline.runtime.restore.restore import catch_up
from pipeline.runtime.task.due_steps import MOST
from pipeline.runtime.task.task import Task
from pipeline.testing import MemoryBroker, Step, TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.expiring_app import TTL_S, ExpiringApp
from tests.support.runtime.window_app import START_MS

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

TASK = TaskId("expiring", "main", 0)


class Kept:
    """An app with a table whose rows live for a minute, and a handler that does little. The group has no other clock.

    `seen`: what it saw of the key of each event. Events with a negative value write nothing.
    """

    def __init__(self, ttl_s: float | None = TTL_S) -> None:
        self.app = App("expiring")
        self.events = self.app.topic("events", key=str, value=int)
        self.table = self.app.table("rows", key=str, value=int, ttl_s=ttl_s)
        self.seen: list[int | None] = []
        self.app.handler(self.events)(self.handle)

    def handle(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.table)
        self.seen.append(table.get(event.key))
        if event.value >= 0:
            table[event.key] = event.value

    def driver(self, rows: int) -> TestDriver:
        """With rows of `START_MS`."""
        driver = TestDriver(self.app)
        for number in range(rows):
            self.send(driver, f"k{number}", 0)
        driver.run()
        return driver

    def send(self, driver: TestDriver, key: str, value: int) -> None:
        """`value`: also the time, in seconds after `START_MS`."""
        driver.send(self.events, key, value, timestamp_ms=START_MS + abs(value) * 1000)

    def on_disk(self, driver: TestDriver) -> int:
        """The number of rows and entries of the index."""
        return sum(not key.endswith(b"\x00tc") for key in driver.stores.contents(TASK))


@pytest.mark.parametrize("mutable", [False, True])
@pytest.mark.parametrize("op", ["get", "many"])
def test_a_row_is_hidden_when_its_time_is_over(op: str, mutable: bool) -> None:
    """At the clock of its last write plus the time-to-live; the clock is that before the record."""
    app = ExpiringApp(mutable=mutable)
    driver = app.driver()
    app.send(driver, "a", 0, op)
    app.send(driver, "b", 59)
    app.send(driver, "a", 59, "read", at_s=59.999)
    app.send(driver, "b", 60, "read")
    app.send(driver, "a", 61, "read")
    driver.run()
    seen = [event.value for event in driver.outputs(app.seen)]
    assert [each.value for each in seen] == [None, None, 0, 59, None]
    assert [each.rows for each in seen] == [
        {},
        {"a": 0},
        {"a": 0, "b": 59},
        {"a": 0, "b": 59},
        {"b": 59},
    ]


def test_each_write_begins_the_time_again_and_a_read_does_not() -> None:
    """Sessions of carts and similar: the last write counts."""
    app = ExpiringApp()
    driver = app.driver()
    for number in (0, 50, 100, 150):
        app.send(driver, "a", number)
    app.send(driver, "a", 205, "read")
    app.send(driver, "b", 210, "read")
    app.send(driver, "a", 211, "read")
    driver.run()
    assert app.values(driver) == [None, 0, 50, 100, 150, None, None]


def test_a_write_by_an_old_event_lives_from_the_clock_on() -> None:
    """Otherwise a row that was just written could be over at once."""
    app = ExpiringApp()
    driver = app.driver()
    for number, at_s in ((0, 100), (1, 20), (2, 159.999), (3, 160), (4, 161)):
        app.send(driver, "b" if number == 1 else "a" if number == 0 else "c", number, at_s=at_s)
    app.send(driver, "b", 5, "read", at_s=100)
    driver.run()
    rows = [event.value.rows for event in driver.outputs(app.seen)]
    assert "b" in rows[2]
    assert "b" in rows[3]
    assert "b" not in rows[4]


def test_rows_are_deleted_when_they_are_over() -> None:
    """A key that was seen once costs nothing in the end, also when no event follows."""
    app = ExpiringApp()
    driver = app.driver()
    for number in range(300):
        app.send(driver, f"k{number}", number, "set", at_s=number / 10)
    driver.run()
    assert app.kept(driver) == 600
    driver.advance(TTL_S + 100)
    assert app.kept(driver) == 0
    assert app.stored(driver) == {}


def test_a_row_that_is_written_often_has_one_entry() -> None:
    """The entry is moved when it is due, not at each write."""
    app = ExpiringApp()
    driver = app.driver()
    for number in range(0, 200, 5):
        app.send(driver, "a", number, "set" if number % 2 else "get")
        driver.run()
        assert app.kept(driver) == 2
        driver.restart()  # what is in memory is lost, so the row is not known when it is written
    assert app.stored(driver) == {"a": 195}
    driver.advance(200)
    assert app.kept(driver) == 0


def test_a_deleted_row_leaves_no_entry() -> None:
    """The entries of a table are not more than its rows."""
    app = ExpiringApp()
    driver = app.driver()
    app.send(driver, "a", 1)
    app.send(driver, "b", 1, "set")
    driver.run()
    app.send(driver, "a", 2, "del")
    app.send(driver, "c", 3)
    app.send(driver, "c", 4, "del")
    driver.run()
    assert app.kept(driver) == 2
    app.send(driver, "a", 70)
    driver.run()
    driver.advance(200)
    assert app.kept(driver) == 0


def test_a_failed_record_changes_neither_value_nor_time() -> None:
    """Both are in the undo log."""
    app = ExpiringApp()
    driver = app.driver()
    app.send(driver, "a", 0)
    driver.run()
    app.send(driver, "a", 50, "fail")
    app.send(driver, "new", 50, "fail")
    app.send(driver, "b", 59, "read")
    app.send(driver, "c", 61, "read")
    app.send(driver, "a", 62, "read")
    driver.run()
    assert [event.value.rows for event in driver.outputs(app.seen)][1:] == [{"a": 0}, {"a": 0}, {}]
    driver.advance(200)
    assert app.kept(driver) == 0


@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_row_is_over_at_the_same_time_across_a_crash(step: Step, empty_disk: bool) -> None:
    """The time of the last write and the clock are in the commit of the row."""
    app = ExpiringApp()
    driver = app.driver()
    app.send(driver, "a", 0)
    driver.run()
    app.send(driver, "a", 30)
    app.send(driver, "b", 40)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.run()
    for number in (89, 91, 99, 101):
        app.send(driver, "x", number, "read")
    app.send(driver, "x", 102, "read")
    driver.run()
    rows = [sorted(event.value.rows) for event in driver.outputs(app.seen)][-5:]
    assert rows == [["a", "b"], ["a", "b"], ["b"], ["b"], []]
    driver.advance(200)
    assert app.kept(driver) == 0


def test_a_row_that_is_over_does_not_return_if_the_time_is_raised() -> None:
    """Whether it is still stored depends on the pace of deletion."""
    app = ExpiringApp()
    driver = app.stopped_driver()
    assert app.kept(driver) == 6
    patient = ExpiringApp(600)
    driver.restart(app=patient.app)
    patient.send(driver, "c", 95, "read")
    patient.send(driver, "b", 96, "read")
    driver.run()
    assert patient.stored(driver) == {"b": 30, "c": 61}
    driver.advance(900)
    assert patient.kept(driver) == 0


def test_a_lower_time_applies_at_once() -> None:
    """The rows are hidden; they are deleted at their old time at the latest."""
    app = ExpiringApp(600)
    driver = app.driver()
    app.send(driver, "a", 0)
    app.send(driver, "b", 50)
    driver.run()
    hasty = ExpiringApp(20)
    driver.restart(app=hasty.app)
    hasty.send(driver, "b", 55)
    hasty.send(driver, "c", 56, "read")
    driver.run()
    assert hasty.stored(driver) == {"b": 55}
    hasty.send(driver, "c", 80, "read")
    driver.run()
    assert hasty.stored(driver) == {}
    driver.advance(700)
    assert hasty.kept(driver) == 0


def test_the_time_to_live_can_be_added_to_a_table() -> None:
    """Its rows count as written when the worker starts: no other time is known of them."""
    plain = Kept(None)
    driver = plain.driver(3)
    assert plain.on_disk(driver) == 3
    driver.clock.set_wall_ms(START_MS + 1_000_000)
    app = Kept()
    driver.restart(app=app.app)
    driver.run()
    for key, value in (("k1", 1020), ("x", -1050), ("k0", -1051), ("x", -1075), ("k2", -1075), ("k1", -1075)):
        app.send(driver, key, value)
        driver.clock.set_wall_ms(START_MS + abs(value) * 1000)
        driver.run()
    assert app.seen == [0, None, 0, None, None, 1020]
    assert app.on_disk(driver) == 2
    driver.advance(200)
    assert app.on_disk(driver) == 0


def test_rows_wait_for_the_clock_of_a_backfill_when_the_time_to_live_is_added() -> None:
    """The wall clock is ahead of it, so they live longer rather than shorter."""
    driver = Kept(None).driver(3)
    app = Kept()
    driver.restart(app=app.app)
    app.send(driver, "x", 500)
    app.send(driver, "k1", 501)
    driver.run()
    assert app.seen == [None, 0]


def test_a_host_whose_clock_is_behind_does_not_hide_the_rows_when_it_adds_the_time_to_live() -> None:
    """The event clock may be that of a host that is ahead. Rows are not written before it."""
    plain = ExpiringApp(None)
    driver = plain.driver()
    for number, key in enumerate("ab"):
        plain.send(driver, key, number, "set", 600)
    driver.run()
    driver.clock.set_wall_ms(START_MS)
    app = ExpiringApp()
    driver.restart(app=app.app)
    driver.run()
    assert set(driver.table(app.table)) == {"a", "b"}


@pytest.mark.parametrize("step", [Step.BEFORE_ACQUIRE, Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_leaves_all_rows_old_or_all_rows_new(step: Step, empty_disk: bool) -> None:
    """The acquire entry has all of them."""
    driver = Kept(None).driver(5)
    app = Kept()
    driver.restart(app=app.app)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    assert app.on_disk(driver) == (10 if step is Step.AFTER_APPLY else 5)
    driver.restart(empty_disk=empty_disk)
    driver.run()
    assert app.on_disk(driver) == 10
    driver.send(app.events, "k3", -1, timestamp_ms=driver.clock.wall_ms())
    driver.advance(200)
    assert app.seen == [0]
    assert app.on_disk(driver) == 0


def test_the_time_to_live_can_be_removed_from_a_table() -> None:
    """What is over does not return. The entries of the index are removed."""
    driver = ExpiringApp().stopped_driver()
    plain = ExpiringApp(None)
    driver.restart(app=plain.app)
    driver.run()
    assert plain.stored(driver) == {"b": 30, "c": 61}
    assert plain.kept(driver) == 2
    again = ExpiringApp()
    driver.restart(app=again.app)
    driver.run()
    assert again.stored(driver) == {"b": 30, "c": 61}
    assert again.kept(driver) == 4


@pytest.mark.parametrize("before", [TTL_S, None])
@pytest.mark.parametrize("after", [TTL_S, None])
def test_values_can_be_upgraded_with_and_without_a_time_to_live(
    before: float | None, after: float | None
) -> None:
    """The function gets the value only."""
    app = ExpiringApp(before)
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    later = ExpiringApp(after, mutable=True, upgrade=lambda old: [old + 1])
    driver.restart(app=later.app)
    driver.run()
    assert later.stored(driver) == {"a": 6}
    later.send(driver, "a", 7)
    driver.run()
    assert later.values(driver)[-1] == 6


def test_a_changed_type_without_an_upgrade_is_refused() -> None:
    """Adding a time-to-live at the same time changes nothing about it."""
    app = ExpiringApp(None)
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    driver.restart(app=ExpiringApp(mutable=True).app)
    with pytest.raises(ConfigError, match="the schema of table rows changed"):
        driver.run()


def test_too_many_rows_to_rewrite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are one journal entry. The message names the ways around."""
    app = ExpiringApp(None)
    driver = app.driver()
    for number in range(20):
        app.send(driver, f"k{number}", number)
    driver.run()
    monkeypatch.setattr("pipeline.runtime.restore.upgrade.MAX_BYTES", 200)
    driver.restart(app=ExpiringApp().app)
    with pytest.raises(ConfigError, match="the rows to rewrite exceed") as caught:
        driver.run()
    assert "pipeline migrate" in (caught.value.hint or "")


def test_a_storm_is_deleted_in_bounded_steps_between_records() -> None:
    """What is over is hidden at once, however many rows there are to delete."""
    app = Kept()
    driver = app.driver(12_000)
    assert app.on_disk(driver) == 24_000
    app.send(driver, "x", 61)
    driver.step()
    app.send(driver, "k5", 62)
    driver.step()
    task = driver.task()
    assert isinstance(task, Task)
    assert not task.idle
    (table,) = task.context.tables
    assert isinstance(table, RuntimeExpiringTable)
    assert 0 < len(table._finished) <= 2 * MOST
    assert app.seen[-2:] == [None, None]
    driver.run()
    assert driver.table(app.table) == {"x": 61, "k5": 62}
    assert app.on_disk(driver) == 4


def test_a_task_that_leaves_deletes_nothing() -> None:
    """The next owner does."""
    app = Kept()
    driver = app.driver(6_000)
    app.send(driver, "x", 61)
    driver.step()
    driver.stop()
    assert app.on_disk(driver) > 1_000
    driver.restart()
    driver.run()
    assert app.on_disk(driver) == 2


def test_as_many_rows_are_deleted_as_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer deletions than new rows, what is over would accumulate."""
    monkeypatch.setattr("pipeline.runtime.task.due_steps.MOST", 1)
    app = Kept()
    driver = app.driver(0)
    for minute in range(30):
        for key in "abc":
            app.send(driver, f"{key}{minute}", 60 * minute)
        driver.step()
        driver.clock.advance(1)
    assert app.on_disk(driver) <= 6 * 3 * 2


def test_a_standby_takes_the_rows_over_with_their_times() -> None:
    """Its copy is made from the journal, with the entries of the index, and never expires anything by itself."""
    app = Kept()
    driver = app.driver(0)
    environment = replace(driver.environment(), stores=MemoryStores())
    copy = None
    for key, second in (("a", 0), ("b", 30), ("c", 61), ("a", 62)):
        app.send(driver, key, second)
        driver.run()
        copy, _, _ = catch_up(TASK, MemoryBroker.cluster_id, copy, environment)
        assert environment.stores.contents(TASK) == driver.stores.contents(TASK)  # type: ignore[attr-defined]
    assert copy is not None
    copy.close()
    driver.restart()
    driver.stores = environment.stores  # type: ignore[assignment]
    for key, second in (("b", 91), ("b", 92), ("c", 120), ("a", 121)):
        app.send(driver, key, -second)
    driver.run()
    assert app.seen[-4:] == [30, None, 61, 62]
    driver.advance(200)
    assert app.on_disk(driver) == 0


def test_duplicates_do_not_extend_the_time() -> None:
    """They are dropped before the handler."""
    app = ExpiringApp(dedup=True)
    driver = app.driver()
    for event_id, at_s in ((b"1", 0), (b"1", 50), (b"2", 59), (b"3", 61)):
        driver.send(
            app.events,
            "a",
            "read 0" if at_s > 50 else "set 0",
            timestamp_ms=START_MS + at_s * 1000,
            event_id=event_id,
        )
    driver.send(app.events, "b", "read 0", timestamp_ms=START_MS + 62_000, event_id=b"4")
    driver.run()
    assert [event.value.rows for event in driver.outputs(app.seen)] == [{}, {"a": 0}, {"a": 0}, {}]


def test_a_batch_writes_at_the_time_of_its_last_event() -> None:
    """As its outputs, so a batch has one time."""
    app = App("expiring")
    events = app.topic("events", key=str, value=int)
    table = app.table("rows", key=str, value=int, ttl_s=60)
    seen: list[dict[str, int]] = []

    @app.batch_handler(events)
    def handle(batch: Batch[str, int], ctx: Context) -> None:
        seen.append(ctx.table(table).get_many(["a", "b"]))
        for event in batch:
            if event.value < 40:
                ctx.table(table)[event.key] = event.value

    driver = TestDriver(app)
    for key, second in (("a", 0), ("b", 30), ("c", 80), ("c", 91), ("c", 92)):
        driver.send(events, key, second, timestamp_ms=START_MS + second * 1000)
        if second != 0:
            driver.run()
    assert seen == [{}, {"a": 0, "b": 30}, {"a": 0, "b": 30}, {}]


def test_the_end_of_a_window_writes_at_the_clock() -> None:
    """It has no event."""
    app = App("expiring")
    events = app.topic("events", key=str, value=int)
    table = app.table("rows", key=str, value=int, ttl_s=60)
    window = app.window("tens", key=str, value=int, size=Tumbling(10), grace_s=0, default=0)

    @app.handler(events)
    def handle(event: Event[str, int], ctx: Context) -> None:
        for row in ctx.window(window).rows(event):
            row.value += 1

    @app.on_close(window)
    def close(closed: ClosedWindow[str, int], ctx: Context) -> None:
        ctx.table(table)[closed.key] = closed.value

    driver = TestDriver(app)
    for second in (5, 25, 84):
        driver.send(events, f"k{second}", second, timestamp_ms=START_MS + second * 1000)
        driver.run()
    assert driver.table(table) == {"k5": 1, "k25": 1}
    driver.send(events, "x", 86, timestamp_ms=START_MS + 86_000)
    driver.run()
    assert driver.table(table) == {"k25": 1}


def test_a_row_that_is_written_before_the_first_record_does_not_expire_with_it() -> None:
    """There is no event clock yet, and the first record moves it from 0 to the present."""
    app = Kept()

    @app.app.every(60, name="note")
    def note(_tick: Tick, ctx: Context) -> None:
        ctx.table(app.table)["noted"] = 1

    driver = TestDriver(app.app)
    driver.run()
    driver.advance(70)
    now_ms = driver.clock.wall_ms()
    for key in ("x", "noted"):
        driver.send(app.events, key, -1, timestamp_ms=now_ms)
        driver.run()
    assert app.seen == [None, 1]


def test_rows_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a batch are read in one call, and those that are over are hidden."""
    app = ExpiringApp()
    driver = app.driver()
    for number in range(100):
        driver.send(app.events, f"k{number}", f"set {number}", timestamp_ms=START_MS + number * 100)
    driver.run()
    monkeypatch.setattr(ExpiringApp, "handle", _only_get)
    quiet = ExpiringApp()
    loads: list[int] = []
    load = RuntimeExpiringTable.load

    def noted(self: RuntimeExpiringTable[Any, Any], keys: Any) -> int:
        loads.append(load(self, keys))
        return loads[-1]

    monkeypatch.setattr(RuntimeExpiringTable, "load", noted)
    driver.restart(app=quiet.app)
    for start in (0, 30, 60):
        for number in range(start, start + 30):
            driver.send(quiet.events, f"k{number}", f"get {number}", timestamp_ms=START_MS + 65_000)
        driver.run()
    assert loads == [30, 30]
    values = quiet.values(driver)[-90:]
    assert values[60:] == list(range(60, 90))
    assert values[30:50] == [None] * 20


def _only_get(self: ExpiringApp, event: Event[str, str], ctx: Context) -> None:
    from tests.support.runtime.expiring_app import Seen  # noqa: PLC0415

    value = ctx.table(self.table).get(event.key)
    ctx.send(self.seen, "p", Seen(0, event.key, "get", 0, 0, value, {}))


@pytest.mark.parametrize("key", [None, "b", "a"])
def test_rows_that_are_over_are_not_shown(key: str | None) -> None:
    """`pipeline table show`, now and in the past, hides them by the clock of the state."""
    app = ExpiringApp()
    driver = app.stopped_driver()
    assert app.kept(driver) == 6
    found = find_table(declared_app(app.app), "rows")
    rows = [(row.key, row.value) for row in rows_of(found, driver.stores.open(TASK), TASK, key)]
    assert rows == [row for row in (("b", 30), ("c", 61)) if key in {None, row[0]}]


def test_a_damaged_row_is_refused() -> None:
    """The task then restores its state."""
    app = ExpiringApp()
    with pytest.raises(CorruptStateError, match="a row with a time-to-live is only 3 bytes long"):
        find_table(declared_app(app.app), "rows").visible(b"abc", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl_s", [0, -1, "60", True, 10**12])
def test_a_wrong_time_to_live_is_refused(ttl_s: Any) -> None:
    """When it is declared."""
    with pytest.raises(ConfigError, match=r"table main.rows: ttl_s is .*; it must be a number of seconds"):
        ExpiringApp(ttl_s)


@pytest.mark.parametrize("first", [True, False])
def test_a_group_of_async_handlers_has_no_time_to_live(first: bool) -> None:
    """Its calls end in any order, so it has no clock."""
    app = App("calls")
    events = app.topic("events", key=str, value=int)

    async def call(_event: object, _ctx: object) -> None: ...

    def declare() -> None:
        app.table("rows", key=str, value=int, ttl_s=60)

    if first:
        declare()
    else:
        app.async_handler(events)(call)
    with pytest.raises(ConfigError, match="async handlers and cannot have a table with ttl_s, rows"):
        app.async_handler(events)(call) if first else declare()
