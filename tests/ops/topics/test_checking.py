"""What a worker says of its topics at its start, where they are declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.errors import ConfigError
from pipeline.ops.topics.checking import check_load, check_topics
from pipeline.ops.topics.writing import render
from tests.ops.topics.conftest import Case, declare


def _check(case: Case, directory: Path, *topics: str, with_ids: str = "") -> list[dict[str, Any]]:
    with capture_logs() as said:
        check_topics(topics, directory, case.cluster, structlog.get_logger(), with_ids=with_ids.split())
    return [dict(each) for each in said]


def test_topics_as_declared_are_not_reported(case: Case, tmp_path: Path) -> None:
    """Nothing is said on the day when all is well; nor of a topic that is not there, which the start itself says."""
    case.create("orders", retention_ms="-1")
    for topic in (declare(retention_ms="-1"), declare("missing")):
        (tmp_path / f"{topic.name}.yaml").write_text(render(topic))
    assert _check(case, tmp_path, "orders", "missing") == []


@pytest.mark.parametrize("place", ["cluster", "declarations"])
def test_a_misspelled_topic_gets_the_similar_name(case: Case, tmp_path: Path, place: str) -> None:
    """A warning with a command to export a topic that does not exist would hide the mistake."""
    if place == "cluster":
        case.create("users")
    (tmp_path / ("other.yaml" if place == "cluster" else "users.yaml")).touch()
    with pytest.raises(ConfigError) as refused, capture_logs() as said:
        check_topics(["usres"], tmp_path, case.cluster, structlog.get_logger())
    assert said == []
    assert refused.value.message == (
        f"the cluster has no topic usres, which this app uses, and {tmp_path} does not declare it; "
        "did you mean 'users'?"
    )
    assert refused.value.hint == (
        "correct the name. If it is correct, declare it in topics/usres.yaml and run: pipeline topics apply"
    )


def test_a_missing_topic_that_the_worker_creates_is_accepted(case: Case, tmp_path: Path) -> None:
    """A Faust application has topics of its agents, which no directory declares."""
    (tmp_path / "other.yaml").touch()
    with capture_logs() as said:
        check_topics(["agent"], tmp_path, case.cluster, structlog.get_logger(), created={"agent"})
    assert said == []


def test_another_number_of_partitions_ends_the_start(case: Case, tmp_path: Path) -> None:
    """The author of the file expects the keys in other partitions."""
    case.create("orders", 6)
    (tmp_path / "orders.yml").write_text(render(declare()))
    with pytest.raises(ConfigError, match=r"orders has 6 partitions, but .*orders\.yml declares 4") as error:
        _check(case, tmp_path, "orders")
    assert "pipeline topics plan" in str(error.value.hint)


def test_other_settings_are_warned_of_by_name(case: Case, tmp_path: Path) -> None:
    """A worker can run with these differences, but the operator should know them."""
    case.create("orders", 4, 2, retention_ms="60000", segment_bytes="2000000")
    (tmp_path / "orders.yaml").write_text(render(declare("orders", 4, "replication: 3", retention_ms="-1")))
    said = _check(case, tmp_path, "orders")
    assert {each["event"] for each in said} == {"topic_differs"}
    assert [(each["setting"], each["declared"], each["actual"]) for each in said] == [
        ("replication", "3", "2"),
        ("retention.ms", "-1", "60000"),
        ("segment.bytes", "the cluster's default", "2000000"),
    ]


def test_a_topic_without_a_declaration_is_warned_of_with_the_command(case: Case, tmp_path: Path) -> None:
    """Where others are declared, this one was forgotten."""
    case.create("orders")
    (tmp_path / "other.yaml").write_text("not read: it is another team's")
    (said,) = _check(case, tmp_path, "orders")
    assert (said["event"], said["topic"]) == ("topic_not_declared", "orders")
    assert said["hint"] == f"pipeline topics export --dir {tmp_path} --topic orders"


def test_a_directory_of_something_else_is_none_of_ours(case: Case, tmp_path: Path) -> None:
    """A Python package may be called topics, too."""
    (tmp_path / "__init__.py").touch()
    assert _check(case, tmp_path, "orders") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("name: orders\ndeleted: true\n", "declares as deleted"), ("name: orders\n", "'partitions' is missing")],
)
def test_a_wrong_file_of_a_topic_of_this_app_ends_the_start(
    case: Case, tmp_path: Path, text: str, said: str
) -> None:
    """It is configuration, as pipeline.toml is."""
    case.create("orders")
    (tmp_path / "orders.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        _check(case, tmp_path, "orders")


def test_ids_that_an_app_needs_are_to_be_declared(case: Case, tmp_path: Path) -> None:
    """A user who loads the topic has its declaration, but not the app."""
    case.create("orders")
    path = tmp_path / "orders.yaml"
    path.write_text(render(declare()))
    assert _check(case, tmp_path, "orders") == []
    (said,) = _check(case, tmp_path, "orders", with_ids="orders")
    assert (said["event"], said["setting"]) == ("topic_differs", "id")
    path.write_text(render(declare("orders", 4, "id: the order's number")))
    assert _check(case, tmp_path, "orders", with_ids="orders") == []


def test_a_load_without_ids_is_refused_where_the_declaration_asks_for_them(tmp_path: Path) -> None:
    """Its records would stop the tasks of who drops duplicates, one load later."""
    check_load("orders", tmp_path)
    path = tmp_path / "orders.yaml"
    for text in (
        render(declare()),
        "wrong",
        render(declare("orders", 4, "id: the order's number")) + "more: 1\n",
    ):
        path.write_text(text)
        check_load("orders", tmp_path)
    path.write_text(render(declare("orders", 4, "id: the order's number")))
    with pytest.raises(
        ConfigError, match=r"events of topic orders have an id \(the order's number\)"
    ) as error:
        check_load("orders", tmp_path)
    assert "--id FIELD" in str(error.value.hint)
