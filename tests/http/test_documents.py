"""The documents behind the page: each is compared with what was done to the app."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

import pytest

from examples.orders.app import app as orders_app
from pipeline.core.records import partition_of
from pipeline.testing import Step, TestDriver
from tests.support.http.asked import Asked
from tests.support.ops.dead_letters.orders import Orders
from tests.support.runtime.several import BAD, Several
from tests.support.runtime.sums import Sums

SECRET = "s3cret"  # noqa: S105
HOSTILE = "<img src=x onerror=alert(1)>"


def asked_of(app: Sums | Orders | Several, *, by_name: bool = False) -> Asked:
    return Asked(app.driver, None if by_name else app.app, app.app.name)


def test_the_ring_tells_who_owns_what() -> None:
    """And that a first owner took the tasks."""
    sums = Sums(partitions=4)
    sums.driver.run()
    ring = asked_of(sums).get("/api/ring")
    [worker] = ring["workers"]
    assert (worker["task_count"], worker["tasks"]) == (4, "main/0-3")
    moves = [move for move in ring["moves"] if move["kind"] == "acquire"]
    assert sum(move["task_count"] for move in moves) == 4
    assert {move["to"] for move in moves} == {worker["worker"]}


def test_a_restart_after_a_crash_is_named_as_the_reason() -> None:
    """The journal has only the owner's name, which is the same before and after."""
    sums = Sums()
    sums.driver.run()
    sums.driver.crash_at(Step.AFTER_COMMIT)
    sums.send(1)
    sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    newest = asked_of(sums).get("/api/ring")["moves"][0]
    assert newest["from"] == newest["to"]
    assert newest["why"].endswith("was restarted after a crash")


def test_the_timeline_counts_the_commits_of_the_journal() -> None:
    """Also those since the last request, each once."""
    sums = Sums(partitions=2)
    asked = asked_of(sums)
    for number in range(5):
        sums.send(number)
        sums.driver.run()
        timeline = asked.get("/api/timeline")
    commits = sum(sum(lane["commits"]) for lane in timeline["lanes"])
    records = sum(sum(lane["records"]) for lane in timeline["lanes"])
    status = asked.get("/api/status")
    written = sum(task["seq"] for task in status["tasks"])
    others = sum(
        event["task_count"] for event in timeline["events"] if event["kind"] in {"genesis", "acquire"}
    )
    assert commits == written - others
    assert records == 5
    assert len(timeline["lanes"]) == 2
    assert {event["kind"] for event in timeline["events"]} >= {"genesis", "acquire"}


def test_entries_that_are_skipped_are_counted_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is opened seldom must not read a whole day of a busy journal."""
    sums = Sums()
    asked = asked_of(sums)
    sums.send(0)
    sums.driver.run()
    asked.get("/api/timeline")
    monkeypatch.setattr("pipeline.ops.overview.timeline.ENTRIES", 2)
    monkeypatch.setattr("pipeline.ops.overview.timeline._LEAST_ENTRIES", 2)
    for number in range(30):
        sums.send(number)
        sums.driver.run()
    [lane] = asked.get("/api/timeline")["lanes"]
    [task] = asked.get("/api/status")["tasks"]
    assert sum(lane["commits"]) == task["seq"] - 2  # genesis and acquire
    assert sum(lane["records"]) == 31


def test_many_tasks_share_the_lane_of_their_group() -> None:
    """Hundreds of lanes could not be read, or sent every two seconds."""
    sums = Sums(partitions=41, tasks=41)
    sums.driver.run()
    [lane] = asked_of(sums).get("/api/timeline")["lanes"]
    assert (lane["group"], lane["task"], lane["task_count"]) == ("main", None, 41)


@pytest.mark.parametrize("by_name", [False, True], ids=["declared", "by-name"])
def test_a_task_shows_its_last_rows(by_name: bool) -> None:
    """With the types of the app, and as text without its code."""
    sums = Sums()
    sums.send(3, 4, key=HOSTILE)
    sums.driver.run()
    document = asked_of(sums, by_name=by_name).get("/api/task/main/0")
    [table] = document["tables"]
    [row] = table["rows"]
    assert (table["name"], row["key"], row["value"]) == ("totals", HOSTILE, '{"count":2,"total":7}')
    newest = document["entries"][0]
    assert (newest["kind"], newest["writes"], newest["seq"]) == ("commit", 1, row["seq"])


@pytest.mark.parametrize("by_name", [False, True], ids=["declared", "by-name"])
def test_a_row_is_searched_for_backwards(by_name: bool) -> None:
    """The last entries of a busy task do not have it any more."""
    sums = Sums()
    sums.send(1, key="old")
    sums.driver.run()
    for number in range(60):
        sums.send(number, key="new")
        sums.driver.run()
    asked = asked_of(sums, by_name=by_name)
    [table] = asked.get("/api/task/main/0")["tables"]
    assert [row["key"] for row in table["rows"]] == ["new"]
    found = asked.get("/api/task/main/0", table="totals", key="old")
    assert found["row"]["value"] == '{"count":1,"total":1}'
    missing = asked.get("/api/task/main/0", table="totals", key="never")
    assert (missing["row"], missing["complete"]) == (None, True)


def test_a_search_that_is_not_complete_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a row that is only older would seem not to exist."""
    sums = Sums()
    sums.send(1, key="old")
    sums.driver.run()
    for number in range(200):
        sums.send(number, key="new")
        sums.driver.run()
    monkeypatch.setattr("pipeline.ops.overview.task.SEARCHED_BYTES", 1)
    found = asked_of(sums).get("/api/task/main/0", table="totals", key="o'd")
    assert (found["row"], found["complete"]) == (None, False)
    assert found["command"] == """pipeline table show totals 'o'"'"'d' --app shop:app --kafka kafka:9"""


def test_a_dead_letter_has_the_command_that_replays_it() -> None:
    """It is copied from the page, and must replay this record only."""
    orders = Orders(partitions=1)
    orders.bad = {2}
    orders.send(1, 2, 3)
    orders.driver.run()
    asked = asked_of(orders)
    [letter] = asked.get("/api/task/main/0")["dead_letters"]["letters"]
    assert (letter["state"], letter["error"]) == ("open", "ValueError: 2 is not an amount")
    command = f"pipeline deadletters replay shop:app {letter['id']} --group main --kafka kafka:9"
    assert letter["command"] == command
    orders.bad = set()
    orders.driver.replay_dead_letters()
    orders.driver.run()
    [letter] = asked.get("/api/task/main/0")["dead_letters"]["letters"]
    assert letter["state"] == "replayed"


@pytest.mark.parametrize("by_name", [False, True], ids=["declared", "by-name"])
def test_rows_of_a_task_are_those_of_all_its_partitions(by_name: bool) -> None:
    """Each partition has rows of its own, also with the same key."""
    several = Several.begun()
    several.send("a", partitions=[2])
    several.send("only here", partitions=[4])
    several.driver.run()
    asked = asked_of(several, by_name=by_name)
    document = asked.get("/api/task/main/0")
    assert document["partitions"] == [0, 2, 4]
    [table] = document["tables"]
    assert table["name"] == "counts"
    rows = {(row["partition"], row["key"]): row["value"] for row in table["rows"]}
    assert rows == {(0, "a"): "1", (2, "a"): "2", (4, "a"): "1", (4, "only here"): "1"}
    found = asked.get("/api/task/main/0", table="counts", key="a")
    assert (found["row"]["partition"], found["row"]["value"]) == (2, "2")
    assert found["command"].startswith("pipeline table show counts a --app ")
    assert asked.get("/api/task/main/1", table="counts", key="only here")["row"] is None


def test_a_row_that_a_reset_has_deleted_is_not_found() -> None:
    """A reset of one partition keeps the rows of the others."""
    several = Several.begun()
    several.driver.reset("latest", partition=0)
    asked = asked_of(several)
    assert asked.get("/api/task/main/0", table="counts", key="a")["row"]["partition"] in {2, 4}
    for partition in (2, 4):
        several.driver.reset("latest", partition=partition)
    found = asked.get("/api/task/main/0", table="counts", key="a")
    assert (found["row"], found["complete"]) == (None, True)


@pytest.mark.parametrize("partitions", [6, 20])
def test_dead_letters_of_a_task_are_those_of_all_its_partitions(partitions: int) -> None:
    """With many partitions, only those of the task are read."""
    several = Several(partitions=partitions)
    for partition in range(
        partitions
    ):  # a key of each partition, because a dead letter is where its key belongs
        key = next(k for k in map(str, range(10_000)) if partition_of(k.encode(), partitions) == partition)
        several.send(key, BAD, [partition])
    several.driver.run()
    for number in range(2):
        letters = asked_of(several).get(f"/api/task/main/{number}")["dead_letters"]["letters"]
        assert sorted(letter["partition"] for letter in letters) == list(range(number, partitions, 2))


def test_a_topic_of_several_partitions_is_one_node() -> None:
    """The positions of such a task are by partition."""
    found = asked_of(Several.begun(), by_name=True).get("/api/topology")
    assert ("topic:numbers", "group:main") in edges(found)
    names = [node["name"] for node in found["nodes"]]
    assert sorted(names) == ["main", "numbers", "several.main.dead-letters"]


def edges(document: dict[str, Sequence[dict[str, object]]]) -> set[tuple[object, object]]:
    return {(edge["from"], edge["to"]) for edge in document["edges"]}


def test_the_topology_has_the_topics_that_a_handler_names() -> None:
    """Declarations tell only what a group reads."""
    sums = Sums()
    sums.driver.run()
    found = asked_of(sums).get("/api/topology")
    assert edges(found) == {("topic:numbers", "group:main"), ("group:main", "topic:sums")}
    assert not any(edge["guess"] for edge in found["edges"])
    [group] = [node for node in found["nodes"] if node["kind"] == "group"]
    assert group["tables"] == ["totals"]


def test_an_attribute_does_not_name_a_topic() -> None:
    """`total.orders` is not the topic `orders`: a line of the graph, and a reset, would take it for an output."""
    driver = TestDriver(orders_app)
    driver.run()
    found = Asked(driver, orders_app, "orders").get("/api/topology")
    assert {target for source, target in edges(found) if source == "group:countries"} == {
        "topic:country-totals"
    }


def test_by_name_the_topology_has_what_kafka_knows() -> None:
    """Outputs are not known then, and the page says so."""
    sums = Sums.begun()
    found = asked_of(sums, by_name=True).get("/api/topology")
    assert edges(found) == {("topic:numbers", "group:main")}
    assert not found["outputs_known"]
    [group] = [node for node in found["nodes"] if node["kind"] == "group"]
    assert group["tables"] == ["totals"]


@pytest.mark.parametrize("path", ["main/9", "other/0", "main/x", "main", "", "main/-1", "main/1234567890"])
def test_a_task_that_does_not_exist_is_not_found(path: str) -> None:
    """A page that was open before the app was changed asks for it."""
    sums = Sums.begun()
    assert asked_of(sums).ask(f"/api/task/{path}")[0] == HTTPStatus.NOT_FOUND


class Reports:
    """One report of a drill."""

    def listed(self, app: str) -> Sequence[dict[str, object]]:
        return [{"id": f"{app}-1"}]

    def page(self, app: str, report: str) -> str | None:
        return "<!doctype html>the report" if report == f"{app}-1" else None


def linked(asked: Asked) -> tuple[str, str]:
    """(path, query) of the link to the report."""
    [report] = asked.get("/api/drills")["reports"]
    path, _, query = report["link"].partition("?")
    return f"/{path}", query


def test_a_report_is_opened_by_a_signed_link() -> None:
    """A link that a browser opens cannot have the header with the token."""
    sums = Sums()
    asked = Asked(sums.driver, sums.app, "sums", token=SECRET, reports=Reports())
    path, query = linked(asked)
    status, headers, body = asked.ask(path, query, HTTP_AUTHORIZATION="")
    assert (status, body) == (200, b"<!doctype html>the report")
    assert "script" not in headers["Content-Security-Policy"].replace("default-src 'none'", "")
    assert SECRET not in query
    for wrong in (
        "",
        query.replace("until=", "until=1"),
        query[:-1],
        re.sub("until=[0-9]+", "until=x", query),
    ):
        assert asked.ask(path, wrong, HTTP_AUTHORIZATION="")[0] == HTTPStatus.UNAUTHORIZED
    assert asked.ask("/drills/sums-2", query, HTTP_AUTHORIZATION="")[0] == HTTPStatus.UNAUTHORIZED
    sums.driver.clock.advance(1_300)
    assert asked.ask(path, query, HTTP_AUTHORIZATION="")[0] == HTTPStatus.UNAUTHORIZED


def test_without_a_token_a_report_needs_a_loopback_name() -> None:
    """As all other data."""
    sums = Sums()
    asked = Asked(sums.driver, sums.app, "sums", reports=Reports())
    path, query = linked(asked)
    assert asked.ask(path, query)[0] == 200
    assert asked.ask("/drills/sums-2")[0] == HTTPStatus.NOT_FOUND
    assert asked.ask(path, query, HTTP_HOST="rebound.example")[0] == HTTPStatus.FORBIDDEN
