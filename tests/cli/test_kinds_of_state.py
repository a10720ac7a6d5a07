"""`pipeline table` with every kind of state: rows now and in the past, by key, by time, and their changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.api.table import table_prefix
from pipeline.app import declared_app
from pipeline.cli.table_rows import find_table, full_key_of, readable_value, rows_of
from pipeline.core.names import TaskId
from pipeline.errors import InputError
from pipeline.ops.history.past_states import AtEntry, restore_at
from pipeline.ops.history.row_changes import row_histories
from pipeline.ops.overview.task import TaskView
from pipeline.ports import Store
from pipeline.runtime.task.task import Task
from pipeline.testing import TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.every_kind import START_MS, EveryKind

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

TASK = TaskId("kinds", "main", 0)
MINUTE = "2023-11-14T22:00:00.000Z"  # START_MS


@pytest.fixture(scope="module")
def kinds() -> EveryKind:
    return EveryKind()


@pytest.fixture(scope="module")
def driver(kinds: EveryKind) -> TestDriver:
    """Two commits of ann's payments, and one of a payment of a key like an address."""
    driver = TestDriver(kinds.app)
    kinds.send(driver, ("ann", 10, 5))
    kinds.send(driver, ("ann", 20, 15))
    kinds.send(driver, ("bob@example.org", 5, 15))
    return driver


def _store(driver: TestDriver) -> Store:
    task = driver.task()
    assert isinstance(task, Task)
    return task.store


def shown(kinds: EveryKind, driver: TestDriver, name: str, key: str | None) -> list[tuple[str, object]]:
    """The rows of the live state as `pipeline table show` finds them."""
    definition = find_table(declared_app(kinds.app), name)
    return [(str(row.key), row.value) for row in rows_of(definition, _store(driver), TASK, key)]


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("totals", "ann", [30]),
        ("last", "ann", [20]),
        ("minutes", "ann", [30]),
        ("minutes", f"ann@{MINUTE}", [30]),
        ("minutes", "ann@2023-11-14T22:01:00Z", []),
        ("minutes", "bob@example.org", [5]),
        ("minutes", f"bob@example.org@{MINUTE}", [5]),
        ("hops", "ann", [30, 30]),
        ("visits", "ann", [30]),
        ("visits", "ann@2023-11-14T22:00:05Z", [30]),
        ("recent", "ann", [10, 20]),
        ("recent", "ann@2023-11-14T22:00:15Z", [20]),
        ("recent", "ann@2023-11-14T22:00:16Z", []),
        ("alarms", "ann", [START_MS + 115_000]),
    ],
)
def test_rows_are_found_by_key_and_by_time(
    kinds: EveryKind, driver: TestDriver, name: str, key: str, values: list[object]
) -> None:
    """A user copies the key that the command has shown. A key may contain an @, too."""
    assert [value for _, value in shown(kinds, driver, name, key)] == values


def test_events_of_a_join_are_found_by_their_key(kinds: EveryKind, driver: TestDriver) -> None:
    """The key is that of the topics."""
    left = shown(kinds, driver, "paid:left", "ann")
    right = shown(kinds, driver, "main.paid:right", "ann")
    assert (len(left), len(right)) == (2, 2)
    with pytest.raises(InputError, match="join paid has a table for each side") as refused:
        find_table(declared_app(kinds.app), "paid")
    assert refused.value.hint == "show one of them: main.paid:left or main.paid:right"


def test_every_row_that_is_shown_is_found_by_its_key(kinds: EveryKind, driver: TestDriver) -> None:
    """Whatever the kind of state is."""
    for name in declared_app(kinds.app).groups[0].tables:
        for key, value in shown(kinds, driver, name, None):
            assert (key, value) in shown(kinds, driver, name, key)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("totals", "ann", [10, 30]),
        ("last", "ann", [10, 20]),
        ("minutes", f"ann@{MINUTE}", [10, 30]),
        (
            "recent",
            f"ann@{MINUTE}",
            [[(START_MS + 5_000, 10)], [(START_MS + s, c) for s, c in ((5_000, 10), (15_000, 20))]],
        ),
        ("alarms", "ann", [START_MS + 105_000, START_MS + 115_000]),
    ],
)
def test_the_changes_of_a_row_are_those_of_the_journal(
    kinds: EveryKind, driver: TestDriver, name: str, key: str, values: list[object]
) -> None:
    """Old and new values are readable in every kind of state."""
    definition = find_table(declared_app(kinds.app), name)
    (found,) = row_histories(TASK, name, full_key_of(definition, key), driver.environment())
    assert [readable_value(definition, change.new) for change in found.changes] == values


def test_every_row_on_the_page_of_a_task_is_found_by_its_key(kinds: EveryKind, driver: TestDriver) -> None:
    """A user copies the key from the list into the search."""
    environment = driver.environment()
    clients: Any = SimpleNamespace(
        cluster=environment.cluster, reader=environment.journals(), sources=environment.sources
    )
    view = TaskView("kinds", declared_app(kinds.app), "x:app", "", clients, driver.clock)
    tables: Any = view.read("main", 0)["tables"]
    assert {table["name"] for table in tables if table["rows"]} == declared_app(kinds.app).groups[
        0
    ].tables.keys()
    for table in tables:
        for row in table["rows"]:
            assert view.row("main", 0, table["name"], row["key"])["row"] == row


@pytest.mark.parametrize("name", ["visits", "paid:left", "paid:right"])
def test_the_changes_of_lists_of_events_are_readable(kinds: EveryKind, driver: TestDriver, name: str) -> None:
    """Sessions and joins have one row for a key."""
    definition = find_table(declared_app(kinds.app), name)
    (found,) = row_histories(TASK, name, table_prefix(name) + b"ann", driver.environment())
    sizes = [len(readable_value(definition, change.new)) for change in found.changes]
    assert sizes == ([1, 1] if name == "visits" else sizes)
    assert sizes[-1] == (1 if name == "visits" else 2)


def test_past_states_have_every_kind_of_row(kinds: EveryKind, driver: TestDriver) -> None:
    """The journal alone gives them back: the state at its end is the live one."""
    task = driver.task()
    assert isinstance(task, Task)
    seq = task.applied.seq
    past = restore_at(TASK, AtEntry(seq), driver.environment(), MemoryStores())
    for name, definition in declared_app(kinds.app).groups[0].tables.items():
        then = [(str(row.key), row.value) for row in rows_of(definition, past.store, TASK, None)]
        assert then == shown(kinds, driver, name, None)
    past.store.close()
