"""What operators see of clocks and windows: metrics, the status, and rows; and what may not be asked of them."""

from __future__ import annotations

import pytest

from pipeline.api.declarations import DeclaredTable
from pipeline.api.windows import DeclaredWindow
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, rows_of
from pipeline.core.names import TaskId
from pipeline.core.records import iso_time
from pipeline.errors import InputError
from pipeline.ops.history.debugging import prepare
from pipeline.runtime.status import read_status
from pipeline.runtime.status.document import status_document
from tests.support.http.scrape import Scraper
from tests.support.runtime.window_app import START_MS, WindowApp

pytestmark = pytest.mark.unverified  # a closed window is made from several records

TASK = TaskId("windows", "main", 0)


def test_the_metrics_show_how_far_the_clock_is_behind_and_late_events() -> None:
    """An input that holds all windows is seen before a user asks for results."""
    app = WindowApp()
    driver = app.driver()
    scrape = Scraper(driver)
    driver.run()
    assert scrape().values("pipeline_clock_behind_seconds") == []
    for value in (5, 300, 6):
        app.send(driver, "a", value)
    driver.run()
    found = scrape()
    behind_s = (driver.clock.wall_ms() - START_MS - 300_000) / 1000
    assert found.value("pipeline_clock_behind_seconds") == pytest.approx(behind_s)
    assert found.value("pipeline_late_events_total") == 1


def test_the_status_shows_the_clock_of_the_last_entry() -> None:
    """Also of entries that move no clock, such as that of the next owner."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 300)
    driver.run()
    driver.restart()
    driver.run()
    environment = driver.environment()
    found = read_status("windows", environment.cluster, environment.journals(), driver.clock.wall_ms())
    (task,) = found.tasks
    assert task.clock_ms == START_MS + 300_000
    assert task.clock_behind_s == pytest.approx((task.entry_ms - task.clock_ms) / 1000)
    (document,) = status_document(found)["tasks"]
    assert document["clock_ms"] == task.clock_ms
    driver.reset()
    after = read_status("windows", environment.cluster, environment.journals(), driver.clock.wall_ms())
    assert after.tasks[0].clock_ms is None


@pytest.mark.parametrize(
    ("key", "starts"),
    [(None, [0, 0, 60]), ("a", [0, 60]), (f"a@{iso_time(START_MS + 60_000)}", [60])],
    ids=["all", "key", "row"],
)
def test_rows_are_shown_by_key_and_window(key: str | None, starts: list[int]) -> None:
    """`pipeline table show` takes a key, or a row as it is shown."""
    app = WindowApp(grace_s=600)
    driver = app.driver()
    for name, value in (("a", 5), ("b", 6), ("a", 65)):
        app.send(driver, name, value)
    driver.run()
    driver.stop()
    window: DeclaredTable[object, object] = find_table(declared_app(app.app), "numbers")
    assert isinstance(window, DeclaredWindow)
    store = driver.stores.open(TASK)
    rows = list(rows_of(window, store, TASK, key))
    assert [(row.key.start_ms - START_MS) // 1000 for row in rows] == starts


def test_a_record_of_a_group_with_windows_is_not_debugged() -> None:
    """What its handlers saw depends on idle inputs, which are not recorded."""
    app = WindowApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    declared = declared_app(app.app)
    with pytest.raises(
        InputError, match="has windows, timers or event times, and its records cannot be debugged"
    ):
        prepare(declared, declared.main, TASK, "events", 0, driver.environment())
