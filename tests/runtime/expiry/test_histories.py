"""Histories: values by event time, sliding windows, what is too old, and how rows are removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import App, Context, Event
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, rows_of
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, InputError
from pipeline.testing import Step, TestDriver
from tests.support.http.scrape import Scraper
from tests.support.runtime.history_app import KEEP_S, HistoryApp
from tests.support.runtime.window_app import START_MS

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

TASK = TaskId("histories", "main", 0)


def test_a_handler_reads_the_values_of_a_range_of_time() -> None:
    """In order of time, whatever the order of the events; both ends are included."""
    app = HistoryApp()
    driver = app.driver()
    for value in (5, 20, 10, 35, 50):
        app.send(driver, "a", value)
    app.send(driver, "b", 36)
    driver.run()
    assert app.read(driver) == [[5], [5, 20], [5, 10], [5, 10, 20, 35], [20, 35, 50], [36]]


def test_values_of_one_time_are_in_the_order_of_their_events() -> None:
    """Also if they were committed at different times."""
    app = HistoryApp()
    driver = app.driver()
    for value in (3, 1, 2):
        app.send(driver, "a", value, at_s=7)
        driver.run()
    assert app.read(driver)[-1] == [3, 1, 2]


def test_a_value_that_is_too_old_is_neither_added_nor_read() -> None:
    """Its age is more than `keep_s` by the clock; a value whose age is exactly that is kept."""
    app = HistoryApp()
    driver = app.driver()
    scrape = Scraper(driver)
    app.send(driver, "a", 10)
    app.send(driver, "a", 10 + KEEP_S)
    app.send(driver, "b", 10)
    app.send(driver, "b", 9)
    driver.run()
    assert app.added(driver) == [True, True, True, False]
    assert app.stored(driver) == [(10, 10), (70, 70)]
    app.send(driver, "a", 11 + KEEP_S)
    driver.run()
    assert app.stored(driver) == [(70, 70), (71, 71)]
    assert driver.worker.progress().late_events == 1
    assert scrape().value("pipeline_late_events_total") == 1


def test_a_reader_of_long_ranges_sees_only_what_is_kept() -> None:
    """What is stored longer, with its bucket, is hidden at once: results must not depend on when it is removed."""
    app = HistoryApp()
    driver = app.driver()
    everything: list[list[int]] = []

    def look(event: Event[str, int], ctx: Context) -> None:
        values = ctx.history(app.history).between("a", 0, 2**62)
        everything.append([value for _, value in values])

    app.app.handler(app.events)(look)
    for value in (5, 25, 45, 80, 100):
        app.send(driver, "a", value)
    driver.run()
    assert everything == [[5], [5, 25], [5, 25, 45], [5, 25, 45, 80], [25, 45, 80, 100]]


def test_rows_are_removed_when_all_their_values_are_too_old() -> None:
    """A key that was seen once costs nothing after `keep_s`, also when no event follows."""
    app = HistoryApp()
    driver = app.driver()
    for number in range(300):
        app.send(driver, f"k{number}", number, at_s=number / 10)
    driver.run()
    assert len(driver.stores.contents(TASK)) == 301
    driver.advance(2 * KEEP_S + 60)
    assert len(driver.stores.contents(TASK)) == 1  # that of the clock


def test_a_hot_key_keeps_the_newest_values_of_a_bucket() -> None:
    """A row is written as a whole, so it must not grow without bounds. What is removed is counted."""
    app = HistoryApp(max_values=3)
    driver = app.driver()
    scrape = Scraper(driver)
    for value in (0, 1, 2, 3, 4, 35):
        app.send(driver, "a", value)
    driver.run()
    assert app.stored(driver) == [(2, 2), (3, 3), (4, 4), (35, 35)]
    assert scrape().value("pipeline_history_values_removed_total") == 2


def test_a_failed_record_adds_nothing() -> None:
    """As in a table, the writes of its attempt are undone."""
    app = HistoryApp(on_error="skip")
    app.broken = {2}
    driver = app.driver()
    for value in (1, 2, 3):
        app.send(driver, "a", value)
    driver.run()
    assert app.stored(driver) == [(1, 1), (3, 3)]


def test_the_end_of_a_window_adds_a_value_at_its_time() -> None:
    """It has no event; its time is that of its outputs."""
    app = HistoryApp(closes=True)
    driver = app.driver()
    app.send(driver, "a", 5)
    app.send(driver, "a", 12)
    driver.run()
    assert driver.history(app.history)["a"] == [
        (START_MS + 5_000, 5),
        (START_MS + 9_999, -1),
        (START_MS + 12_000, 12),
    ]


def test_another_key_than_that_of_the_event_can_be_used() -> None:
    """As in a table."""
    app = App("others")
    events = app.topic("events", key=str, value=int)
    sums = app.history("sums", key=int, value=int, keep_s=60)

    @app.handler(events)
    def add(event: Event[str, int], ctx: Context) -> None:
        assert ctx.history(sums).add(event, event.value, key=event.value % 2)

    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send(events, "a", value, timestamp_ms=START_MS + value)
    driver.run()
    assert driver.history(sums) == {1: [(START_MS + 1, 1), (START_MS + 3, 3)], 0: [(START_MS + 2, 2)]}


@pytest.mark.parametrize("keep_s", [20, 200])
def test_another_keep_s_applies_at_once(keep_s: int) -> None:
    """Rows of old buckets are read beside those of new ones. A value that was too old stays so."""
    app = HistoryApp()
    driver = app.driver()
    for value in (10, 40, 75):
        app.send(driver, "a", value)
    driver.run()
    assert app.stored(driver) == [(40, 40), (75, 75)]
    changed = HistoryApp(keep_s=keep_s)
    driver.restart(app=changed.app)
    changed.send(driver, "a", 70)
    changed.send(driver, "a", 12)
    driver.run()
    assert changed.added(driver)[-2:] == [True, False]
    expected = [(40, 40), (70, 70), (75, 75)] if keep_s == 200 else [(70, 70), (75, 75)]
    assert changed.stored(driver) == expected
    driver.advance(2 * keep_s + 120)
    assert len(driver.stores.contents(TASK)) == 1


@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_value_is_added_once_across_a_crash(step: Step, empty_disk: bool) -> None:
    """The row contains the whole list, so applying an entry twice has no effect."""
    app = HistoryApp()
    driver = app.driver()
    app.send(driver, "a", 25)
    driver.run()
    app.send(driver, "a", 28)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    app.send(driver, "a", 35)
    driver.run()
    assert app.read(driver) == [[25], [25, 28], [25, 28, 35]]


def test_a_reset_starts_over() -> None:
    """Nothing is too old: the clock is reset with the rows."""
    app = HistoryApp()
    driver = app.driver()
    for value in (5, 100):
        app.send(driver, "a", value)
    driver.run()
    driver.reset()
    driver.run()
    assert app.added(driver) == [True] * 4
    assert app.stored(driver) == [(100, 100)]


def test_values_can_be_upgraded() -> None:
    """Each value of a row by itself."""
    app = HistoryApp()
    driver = app.driver()
    for value in (5, 6, 40):
        app.send(driver, "a", value)
    driver.run()
    later = App("histories")
    events = later.topic("events", key=str, value=int)
    history = later.history("numbers", key=str, value=str, keep_s=KEEP_S, upgrade=lambda old: f"<{old}>")
    later.handler(events)(lambda _event, _ctx: None)
    driver.restart(app=later)
    driver.run()
    assert [value for _, value in driver.history(history)["a"]] == ["<5>", "<6>", "<40>"]


def test_a_table_cannot_become_a_history() -> None:
    """Its rows have another layout."""
    plain = App("histories")
    events = plain.topic("events", key=str, value=int)
    table = plain.table("numbers", key=str, value=int)

    @plain.handler(events)
    def keep(event: Event[str, int], ctx: Context) -> None:
        ctx.table(table)[event.key] = event.value

    driver = TestDriver(plain)
    driver.send(events, "a", 1)
    driver.run()
    driver.restart(app=HistoryApp(upgrade=lambda old: old).app)
    with pytest.raises(ConfigError, match="the key of table numbers changed"):
        driver.run()


def test_a_history_that_is_no_longer_declared_is_refused() -> None:
    """Its rows would stay forever."""
    app = HistoryApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    other = App("histories")
    events = other.topic("events", key=str, value=int)
    other.handler(events)(lambda _event, _ctx: None)
    driver.restart(app=other)
    with pytest.raises(ConfigError, match="history numbers has state, and the app no longer declares it"):
        driver.run()


@pytest.mark.parametrize("key", [None, "a"])
def test_each_value_is_shown_as_a_row(key: str | None) -> None:
    """`pipeline table show` hides what is too old."""
    app = HistoryApp()
    driver = app.driver()
    for name, value in (("a", 5), ("a", 20), ("b", 30), ("a", 70)):
        app.send(driver, name, value)
    driver.run()
    driver.stop()
    found = find_table(declared_app(app.app), "numbers")
    rows = [(str(row.key), row.value) for row in rows_of(found, driver.stores.open(TASK), TASK, key)]
    shown = [("a@2023-11-14T21:00:20.000Z", 20), ("b@2023-11-14T21:00:30.000Z", 30)]
    shown.append(("a@2023-11-14T21:01:10.000Z", 70))
    assert sorted(rows) == sorted(row for row in shown if key is None or row[0][0] == key)


def test_a_row_of_a_command_line_needs_a_time() -> None:
    """`pipeline table history` shows the changes of one row."""
    found = find_table(declared_app(HistoryApp().app), "numbers")
    assert str(found.parse_key("a@2023-11-14T21:00:20Z")) == "a@2023-11-14T21:00:30.000Z"
    with pytest.raises(InputError, match="'a' is not a row of history"):
        found.parse_key("a")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"keep_s": 0.001}, r"keep_s is 0.001; it must be a number of seconds, 0.002 to"),
        ({"keep_s": "60"}, r"keep_s is '60'"),
        ({"max_values": 0}, r"max_values is 0; it must be a whole number, 1 to 1,000,000"),
        ({"max_values": True}, r"max_values is True"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], problem: str) -> None:
    """When it is declared, not with the first record."""
    with pytest.raises(ConfigError, match=problem):
        HistoryApp(**options)  # type: ignore[arg-type]


def test_wrong_uses_are_refused() -> None:
    """Declarations of another kind, and a value of another type."""
    app = HistoryApp()
    table = app.app.table("t", key=str, value=int)
    errors: list[str] = []

    def try_all(event: Event[str, int], ctx: Context) -> None:
        uses: tuple[Callable[[], object], ...] = (
            lambda: ctx.history(table),  # type: ignore[arg-type]
            lambda: ctx.window(app.history),  # type: ignore[arg-type]
            lambda: ctx.table(app.history),  # type: ignore[arg-type]
            lambda: ctx.history(HistoryApp().history),
            lambda: ctx.history(app.history).add(event, "text"),  # type: ignore[call-overload]
            lambda: ctx.history(app.history).add(event, 1, key=5),  # type: ignore[call-overload]
        )
        for use in uses:
            try:
                use()
            except (ConfigError, TypeError, ValueError) as error:
                errors.append(str(error))

    app.app.handler(app.events)(try_all)
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    for text, expected in zip(
        errors,
        [
            "ctx.history takes what app.history",
            "ctx.window takes what app.window",
            "ctx.table takes what app.table",
            "does not belong to the group",
            "history main.numbers: expected int, got str",
            "history main.numbers: expected a key of type str, got int",
        ],
        strict=True,
    ):
        assert expected in text


def test_a_group_of_async_handlers_has_no_history() -> None:
    """Its calls end in any order, so it has no clock."""
    app = App("calls")
    events = app.topic("events", key=str, value=int)

    async def call(_event: object, _ctx: object) -> None: ...

    app.async_handler(events)(call)
    with pytest.raises(ConfigError, match="async handlers and cannot have a history, numbers"):
        app.history("numbers", key=str, value=int, keep_s=60)
