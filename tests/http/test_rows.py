"""`/api/rows/`: committed rows by key, from the worker that has their task."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import Any

import pytest

from pipeline import App, Context, Event
from pipeline.api.app import DeclaredApp
from pipeline.app import declared_app
from pipeline.core.names import TaskId
from pipeline.core.records import partition_of
from pipeline.http.application import Answer, Request
from pipeline.http.rows import ROWS, RowDocuments
from pipeline.testing import TestDriver
from tests.support.runtime.fleet import Fleet, Node
from tests.support.runtime.sums import Sums


def documents(node: Node, app: DeclaredApp) -> RowDocuments:
    made = RowDocuments(app, node.worker_id)
    made.queries = node.worker.row_queries
    return made


def get(rows: RowDocuments, path: str, **query: object) -> tuple[HTTPStatus, dict[str, Any]]:
    given = {name: str(value) for name, value in query.items()}
    answer: Answer = rows.answer(Request(f"{ROWS}{path}", query=given))
    return answer.status, json.loads(answer.body)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet.at_rest("a", "b")


def test_the_owner_of_the_task_has_the_row_and_the_others_name_it(fleet: Fleet) -> None:
    """A program may ask any worker first."""
    app = declared_app(fleet.sums.app)
    for key in ("k0", "k1", "k2", "k3", "k4"):
        partition = partition_of(key.encode(), 4)
        for node in fleet.nodes:
            status, found = get(documents(node, app), "main/totals", key=key)
            if TaskId("sums", "main", partition) in node.live:
                assert status == HTTPStatus.OK
                numbers = [number for sent, number in fleet.sums.sent if sent == key]
                assert found["value"] == {"count": len(numbers), "total": sum(numbers)}
                assert (found["partition"], found["task"]) == (partition, f"main/{partition}")
                assert found["worker"] == node.worker_id
            else:
                assert status == HTTPStatus.MISDIRECTED_REQUEST
                assert found["worker"] == next(each.worker_id for each in fleet.nodes if each is not node)


def test_a_row_has_the_entry_and_the_positions_that_it_contains(fleet: Fleet) -> None:
    """With them, a program knows whether its own record is in the answer."""
    (node,) = [each for each in fleet.nodes if TaskId("sums", "main", 0) in each.live]
    task = node.live[TaskId("sums", "main", 0)]
    key = next(f"k{n}" for n in range(100) if partition_of(b"k%d" % n, 4) == 0)
    _, before = get(documents(node, declared_app(fleet.sums.app)), "main/totals", key=key)
    assert before["seq"] == task.applied.seq
    assert before["positions"] == {"numbers/0": task.applied.positions["numbers"]}
    fleet.sums.send(5, key=key)
    fleet.settle()
    _, after = get(documents(node, declared_app(fleet.sums.app)), "main/totals", key=key)
    assert after["seq"] > before["seq"]
    assert after["positions"] == {"numbers/0": before["positions"]["numbers/0"] + 1}
    assert after["value"]["count"] == (before["value"] or {"count": 0})["count"] + 1


def test_only_committed_rows_are_shown() -> None:
    """A record that is handled but not committed may be handled again, with another result."""
    sums = Sums(deferred=True)
    sums.send(1)
    sums.driver.run()
    rows = RowDocuments(declared_app(sums.app), "w")
    rows.queries = sums.driver.worker.row_queries
    assert get(rows, "main/totals", key="a")[1]["value"] == {"count": 1, "total": 1}
    sums.send(2)
    while sums.driver.worker.progress().records != 2:
        sums.driver.worker.step()  # no commit is published: the executor does not run
    assert get(rows, "main/totals", key="a")[1]["value"] == {"count": 1, "total": 1}
    sums.driver.run()
    assert get(rows, "main/totals", key="a")[1]["value"] == {"count": 2, "total": 3}


def test_the_age_is_the_time_since_the_last_commit_began() -> None:
    """A worker that was stopped for a minute, and lost its tasks meanwhile, must not call its rows new."""
    sums = Sums.begun()
    rows = RowDocuments(declared_app(sums.app), "w")
    rows.queries = sums.driver.worker.row_queries
    young = get(rows, "main/totals", key="a")[1]["age_s"]
    sums.driver.clock.advance(40.0)
    assert get(rows, "main/totals", key="a")[1]["age_s"] == pytest.approx(young + 40.0)
    sums.send(1)
    sums.driver.run()
    assert get(rows, "main/totals", key="a")[1]["age_s"] < 1.0


def test_a_task_that_was_released_is_not_answered_from_its_old_state(fleet: Fleet) -> None:
    """The state is still on the disk, and another worker has continued."""
    leaving, staying = fleet.nodes
    app = declared_app(fleet.sums.app)
    rows = documents(leaving, app)
    fleet.stop(leaving)
    fleet.run(5.0)
    statuses = {get(rows, "main/totals", key=f"k{n}")[0] for n in range(8)}
    assert HTTPStatus.OK not in statuses
    assert {get(documents(staying, app), "main/totals", key=f"k{n}")[0] for n in range(8)} == {HTTPStatus.OK}


@pytest.mark.parametrize(
    ("path", "query", "status", "text"),
    [
        ("main/total", {"key": "a"}, HTTPStatus.NOT_FOUND, "has no table 'total'; did you mean 'totals'?"),
        ("other/totals", {"key": "a"}, HTTPStatus.NOT_FOUND, "does not run a group 'other'"),
        ("", {"key": "a"}, HTTPStatus.NOT_FOUND, "does not run a group ''"),
        ("main/totals", {}, HTTPStatus.BAD_REQUEST, "names no key"),
        ("main/totals", {"key_base64": "_w=="}, HTTPStatus.BAD_REQUEST, "utf-8"),
        ("main/totals", {"key_base64": "a"}, HTTPStatus.BAD_REQUEST, "cannot be decoded"),
        (
            "main/totals",
            {"key": "a", "partition": "9"},
            HTTPStatus.BAD_REQUEST,
            "no partition 9: the inputs have 4",
        ),
        ("main/totals", {"key": "a", "partition": "x"}, HTTPStatus.BAD_REQUEST, "partition is 'x'"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(
    fleet: Fleet, path: str, query: dict[str, str], status: HTTPStatus, text: str
) -> None:
    """It is written by hand with curl."""
    found = get(documents(fleet.nodes[0], declared_app(fleet.sums.app)), path, **query)
    assert found[0] == status
    assert text in found[1]["error"]


def test_a_worker_that_has_not_started_asks_to_try_again() -> None:
    """The port is open before the tasks are known."""
    rows = RowDocuments(declared_app(Sums().app), "w")
    assert get(rows, "main/totals", key="a")[0] == HTTPStatus.SERVICE_UNAVAILABLE


def test_an_undeclared_table_is_told_apart_from_a_group_of_other_workers(fleet: Fleet) -> None:
    """Only the second answer can be another one elsewhere, or once the worker has started."""
    starting = RowDocuments(declared_app(Sums().app), "w")
    for rows in (starting, documents(fleet.nodes[0], declared_app(fleet.sums.app))):
        status, found = get(rows, "main/total", key="a")
        assert (status, found["declared"]) == (HTTPStatus.NOT_FOUND, False)
        status, found = get(rows, "other/totals", key="a")
        assert status == HTTPStatus.NOT_FOUND
        assert "declared" not in found


def test_keys_and_values_of_other_types() -> None:
    """Keys that are not those of an input need the partition of the record that wrote the row."""
    app = App("visits")
    visits = app.topic("visits", key=str, value=int)
    by_day = app.table("by-day", key=tuple[str, int], value=bytes)

    @app.handler(visits)
    def count(event: Event[str, int], ctx: Context) -> None:
        ctx.table(by_day)[event.key, event.value] = b"\xff\x00"

    driver = TestDriver(app, partitions=2)
    driver.send(visits, "ann", 3)
    driver.run()
    rows = RowDocuments(declared_app(app), "w")
    rows.queries = driver.worker.row_queries
    status, refused = get(rows, "main/by-day", key='["ann",3]')
    assert status == HTTPStatus.BAD_REQUEST
    assert "the partition of a row is not known" in refused["error"]
    partition = partition_of(b"ann", 2)
    for query in ({"key": '["ann",3]'}, {"key_base64": urlsafe_b64encode(b'["ann",3]').decode()}):
        _, found = get(rows, "main/by-day", partition=partition, **query)
        assert b64decode(found["value_base64"]) == b"\xff\x00"
    assert not get(rows, "main/by-day", key='["ann",4]', partition=partition)[1]["found"]


def test_rows_of_several_partitions_of_a_task_are_told_apart() -> None:
    """The same key can be in each of them."""
    app = App("places", tasks=1)
    visits = app.topic("visits", key=str, value=int)
    last = app.table("last", key=str, value=int)

    @app.handler(visits)
    def keep(event: Event[str, int], ctx: Context) -> None:
        ctx.table(last)["all"] = event.value

    driver = TestDriver(app, partitions=3, tasks=1)
    keys = {partition_of(b"%d" % n, 3): str(n) for n in range(50)}
    for partition, key in keys.items():
        driver.send(visits, key, 100 + partition)
    driver.run()
    rows = RowDocuments(declared_app(app), "w")
    rows.queries = driver.worker.row_queries
    for partition in range(3):
        _, found = get(rows, "main/last", key="all", partition=partition)
        assert (found["value"], found["task"]) == (100 + partition, "main/0")
