"""Rows of windows, sessions and histories for other programs: what a handler would see, at one journal entry."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from pipeline import ConfigError, Reader, Settings
from pipeline.api.window_rows import RuntimeWindow
from pipeline.app import declared_app
from pipeline.core.event_time import NEVER_MS
from pipeline.core.names import TaskId
from pipeline.http.application import Request
from pipeline.http.rows import ROWS, RowDocuments
from pipeline.queries.reader import _Row
from pipeline.runtime.task.task import Task
from pipeline.testing import TestDriver
from tests.support.runtime.every_kind import START_MS, EveryKind, Payment

pytestmark = pytest.mark.unverified  # what an event sees is made from several records


class DriverReader(Reader):
    """A reader of the worker of a driver, without HTTP."""

    def __init__(self, kinds: EveryKind, driver: TestDriver) -> None:
        super().__init__(kinds.app, Settings())
        self.documents = RowDocuments(declared_app(kinds.app), "test")
        self.documents.queries = driver.worker.row_queries

    def ask(self, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        name, _, query = path.partition("?")
        pairs = dict(pair.split("=") for pair in query.split("&"))
        answer = self.documents.answer(Request(f"{ROWS}main/{name}", query=pairs))
        return answer.status, json.loads(answer.body)

    def _counts_of(self, group: str) -> tuple[int, int]:
        return 1, 1

    def _ask(self, task: TaskId, path: str, until_s: float) -> tuple[_Row | None, str]:
        status, document = self.ask(path.removeprefix(f"{ROWS}main/").replace("%3D", "="))
        assert status == HTTPStatus.OK, document
        return msgspec.convert(document, _Row), ""


def at(seconds: float) -> int:
    return START_MS + int(seconds * 1000)


@pytest.fixture
def kinds() -> EveryKind:
    return EveryKind()


@pytest.fixture
def driver(kinds: EveryKind) -> TestDriver:
    """The clock is 65 s after the start."""
    driver = TestDriver(kinds.app)
    kinds.send(driver, ("ann", 10, 5), ("ann", 20, 45), ("bob", 5, 50), ("ann", 1, 64))
    driver.send(kinds.orders, "x", _payment(65))
    driver.send(kinds.payments, "x", _payment(65))
    driver.run()
    return driver


def _payment(at_s: int) -> Payment:
    return Payment(0, at_s)


def test_an_open_window_is_read_at_a_time_in_it(kinds: EveryKind, driver: TestDriver) -> None:
    """A service shows the count of this hour while the hour is not over."""
    with DriverReader(kinds, driver) as reader:
        first, second = (reader.get(kinds.minutes, "ann", at_ms=at(s)).value for s in (59.999, 60))
        assert (first, second) == (30, 1)
        assert reader.get(kinds.minutes, "bob", at_ms=at(60)).value is None
        # Of the windows from 0 and from 30 s, the first one ends first.
        assert reader.get(kinds.hops, "ann", at_ms=at(31)).value == 30
        assert reader.get(kinds.hops, "ann", at_ms=at(61)).value == 21
    assert driver.windows(kinds.minutes)["ann", START_MS] == 30


def test_a_closed_window_has_no_value_also_while_it_is_stored(
    kinds: EveryKind, driver: TestDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler cannot open it either."""
    monkeypatch.setattr(RuntimeWindow, "next_ms", NEVER_MS)
    kinds.send(driver, ("x", 0, 70))
    assert ("ann", START_MS) in driver.windows(kinds.minutes)
    with DriverReader(kinds, driver) as reader:
        assert reader.get(kinds.minutes, "ann", at_ms=at(0)).value is None
        assert reader.get(kinds.hops, "ann", at_ms=at(31)).value == 21
        _, found = reader.ask(f"hops?key=ann&at_ms={at(31)}")
    assert [(row["start_ms"], row["value"]) for row in found["rows"]] == [(at(30), 21)]


def test_sessions_are_read_as_an_event_would_meet_them(kinds: EveryKind, driver: TestDriver) -> None:
    """At most the gap away from the time. Two of them are merged, as in a handler."""
    driver.send(kinds.payments, "bob", Payment(7, 90))
    driver.run()
    with DriverReader(kinds, driver) as reader:
        assert reader.get(kinds.visits, "bob", at_ms=at(90)).value == 7
        assert reader.get(kinds.visits, "bob", at_ms=at(111)).value is None
        assert reader.get(kinds.visits, "bob", at_ms=at(70)).value == 12
        _, found = reader.ask(f"visits?key=bob&at_ms={at(70)}")
        assert reader.get(kinds.visits, "nobody", at_ms=at(70)).value is None
    times = [(row["start_ms"], row["end_ms"], row["value"]) for row in found["rows"]]
    assert times == [(at(50), at(50) + 1, 5), (at(90), at(90) + 1, 7)]


def test_values_of_a_history_are_read_between_two_times(kinds: EveryKind, driver: TestDriver) -> None:
    """Both times are included, over all buckets; older values than keep_s are hidden before they are removed."""
    with DriverReader(kinds, driver) as reader:
        answer = reader.between(kinds.recent, "ann", at(5), at(64))
        assert answer.value == [(at(5), 10), (at(45), 20), (at(64), 1)]
        assert reader.between(kinds.recent, "ann", at(6), at(63)).value == [(at(45), 20)]
        assert reader.between(kinds.recent, "ann", at(9), at(6)).value == []
        assert reader.between(kinds.recent, "nobody", -1, 2**80).value == []
        kinds.send(driver, ("x", 0, 126))
        assert reader.between(kinds.recent, "ann", 0, 2**63 - 1).value == [(at(45), 20), (at(64), 1)]


def test_the_rows_of_an_answer_are_those_at_one_entry(kinds: EveryKind, driver: TestDriver) -> None:
    """A commit between two reads could move a value from one row to another one."""
    task = driver.task()
    assert isinstance(task, Task)
    read, pending = task.store.row, [0, 0]

    def row(key: bytes) -> Any:
        found = read(key)
        pending.append(0)
        if len(pending) == 4:  # the clock and a bucket were read
            kinds.send(driver, ("ann", 2, 50), ("ann", 3, 66))
        return found

    task.store.row = row  # type: ignore[method-assign]
    with DriverReader(kinds, driver) as reader:
        answer = reader.between(kinds.recent, "ann", at(45), at(70))
    assert answer.value == [(at(45), 20), (at(50), 2), (at(64), 1), (at(66), 3)]
    assert answer.seq == task.applied.seq


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("minutes?key=ann", "window main.minutes is read by time, and the request has no at_ms"),
        ("recent?key=ann&from_ms=1", "history main.recent is read by time, and the request has no to_ms"),
        ("visits?key=ann&at_ms=-1", "at_ms is '-1'"),
        ("visits?key=ann&at_ms=9223372036854775808", "at_ms is '9223372036854775808'"),
    ],
)
def test_a_request_without_times_says_which(
    kinds: EveryKind, driver: TestDriver, path: str, text: str
) -> None:
    """It is written by hand with curl."""
    status, found = DriverReader(kinds, driver).ask(path)
    assert (status, text in found["error"]) == (HTTPStatus.BAD_REQUEST, True)


def test_joins_and_timers_are_not_read(kinds: EveryKind, driver: TestDriver) -> None:
    """Their rows are those of the runtime."""
    for name in ("paid:left", "alarms"):
        assert DriverReader(kinds, driver).ask(f"{name}?key=ann")[0] == HTTPStatus.NOT_FOUND


def test_wrong_uses_of_the_reader_name_the_right_one(kinds: EveryKind, driver: TestDriver) -> None:
    """The types say it, too; not all programs are checked."""
    reader: Any = DriverReader(kinds, driver)
    with pytest.raises(ConfigError, match="has a value for each period"):
        reader.get(kinds.minutes, "ann")
    with pytest.raises(ConfigError, match="at_ms does not apply"):
        reader.get(kinds.totals, "ann", at_ms=5)
    with pytest.raises(ConfigError, match=r"at_ms is 5\.0"):
        reader.get(kinds.visits, "ann", at_ms=5.0)
    with pytest.raises(ConfigError, match="has many values for a key"):
        reader.get(kinds.recent, "ann")
    with pytest.raises(ConfigError, match="is not a history"):
        reader.between(kinds.minutes, "ann", 1, 2)
    with pytest.raises(ConfigError, match="is not a table of app kinds"):
        reader.get(kinds.alarms, "ann")
