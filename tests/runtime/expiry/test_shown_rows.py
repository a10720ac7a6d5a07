"""What other programs and operators see of rows with a time-to-live: HTTP, the history of a row, the page of a task."""

from __future__ import annotations

import json
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.api.expiring_rows import RuntimeExpiringTable
from pipeline.api.table import table_prefix
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, readable_value
from pipeline.core.event_time import NEVER_MS
from pipeline.core.names import TaskId
from pipeline.http.application import Request
from pipeline.http.rows import ROWS, RowDocuments
from pipeline.ops.history.row_changes import row_histories
from pipeline.ops.overview.task import TaskView
from pipeline.runtime.task.task import Task
from pipeline.testing import TestDriver
from tests.support.runtime.expiring_app import ExpiringApp

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

TASK = TaskId("expiring", "main", 0)


@pytest.fixture
def undeleted(monkeypatch: pytest.MonkeyPatch) -> ExpiringApp:
    """An app that never deletes what is over."""
    monkeypatch.setattr(RuntimeExpiringTable, "next_ms", NEVER_MS)
    return ExpiringApp()


def ask(app: ExpiringApp, driver: TestDriver, key: str) -> dict[str, Any]:
    """The answer of `/api/rows/`."""
    documents = RowDocuments(declared_app(app.app), "test")
    documents.queries = driver.worker.row_queries
    answer = documents.answer(Request(f"{ROWS}main/rows", query={"key": key}))
    assert answer.status == HTTPStatus.OK
    document: dict[str, Any] = json.loads(answer.body)
    return document


def test_a_query_does_not_find_what_is_over(undeleted: ExpiringApp) -> None:
    """Whether it is deleted or not. The value has no times."""
    driver = undeleted.driver()
    for key, number in (("a", 0), ("b", 30), ("c", 61)):
        undeleted.send(driver, key, number)
    driver.run()
    assert undeleted.kept(driver) == 6
    assert (ask(undeleted, driver, "a")["found"], ask(undeleted, driver, "x")["found"]) == (False, False)
    found = ask(undeleted, driver, "b")
    assert (found["found"], found["value"], found["value_base64"]) == (True, 30, "MzA=")


def test_a_row_that_is_written_during_a_query_is_found(undeleted: ExpiringApp) -> None:
    """The clock must not be newer than the row: the old row with the new clock would be over."""
    driver = undeleted.driver()
    undeleted.send(driver, "a", 0)
    driver.run()
    task = driver.task()
    assert isinstance(task, Task)
    read, pending = task.store.row, [0]

    def row(key: bytes) -> Any:
        found = read(key)
        if pending:
            pending.clear()
            for number in (59, 70):
                undeleted.send(driver, "a", number)
            driver.run()
        return found

    task.store.row = row  # type: ignore[method-assign]
    assert ask(undeleted, driver, "a")["value"] == 70
    assert not pending


def test_the_history_of_a_row_has_its_values_and_its_end() -> None:
    """A row that only gets another entry has not changed."""
    app = ExpiringApp()
    driver = app.driver()
    for key, number in (("a", 0), ("a", 50), ("x", 61), ("x", 62), ("x", 112), ("x", 113)):
        app.send(driver, key, number)
        driver.run()
    definition = find_table(declared_app(app.app), "rows")
    (found,) = row_histories(TASK, "rows", table_prefix("rows") + b"a", driver.environment())
    assert [readable_value(definition, change.new) for change in found.changes] == [0, 50, None]


def test_the_history_of_a_row_knows_its_earlier_layouts() -> None:
    """The time-to-live was added, and the type changed later."""
    plain = ExpiringApp(None)
    driver = plain.driver()
    plain.send(driver, "a", 1)
    driver.run()
    for app in (ExpiringApp(), ExpiringApp(mutable=True, upgrade=lambda old: [old])):
        driver.restart(app=app.app)
        driver.run()
    definition = find_table(declared_app(app.app), "rows")
    (found,) = row_histories(TASK, "rows", table_prefix("rows") + b"a", driver.environment())
    assert [readable_value(definition, change.new) for change in found.changes] == [1, [1]]


def test_the_page_of_a_task_shows_values_without_times() -> None:
    """It decodes what entries have written."""
    app = ExpiringApp()
    driver = app.driver()
    app.send(driver, "a", 5)
    driver.run()
    environment = driver.environment()
    clients: Any = SimpleNamespace(
        cluster=environment.cluster, reader=environment.journals(), sources=environment.sources
    )
    view = TaskView("expiring", declared_app(app.app), "x:app", "", clients, driver.clock)
    tables: Any = view.read("main", 0)["tables"]
    (rows,) = [table["rows"] for table in tables if table["name"] == "rows"]
    assert [(row["key"], row["value"]) for row in rows] == [("a", "5")]
