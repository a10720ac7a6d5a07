"""Positions of sinks in their database, row by row; a test's name ends with the row's number."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.core.sink_positions import (
    Hold,
    InputNow,
    PositionRow,
    SinkPlan,
    check_inputs,
    is_held,
    next_epoch,
    plan_positions,
    resolve_commit,
)
from pipeline.errors import ConfigError, FatalTaskError, InvariantError

TASK = TaskId("app", "rows", 0)
HOLD = Hold(TASK, 7, "process", {"a": 10, "b": 20}, 2)
AFTER = {"a": 15, "b": 20}
NOW = {"a": InputNow("id-a", "cluster", 2), "b": InputNow("id-b", "cluster", 2)}


def row(topic: str, position: int, **changed: object) -> PositionRow:
    """One of the holder's, but for what is changed."""
    made = PositionRow(topic, 0, position, 7, "w", "process", f"id-{topic}", "cluster", 2)
    return made._replace(**changed)  # type: ignore[arg-type]


def rows(a: int, b: int, **changed: object) -> Mapping[str, PositionRow]:
    return {"a": row("a", a, **changed), "b": row("b", b)}


# Outcome of a commit


@pytest.mark.parametrize(
    "found",
    [
        rows(15, 20, epoch=8),
        rows(15, 20, epoch=6),
        rows(15, 20, process="another"),
        {"a": row("a", 15)},
        {},
    ],
    ids=["newer epoch", "older epoch", "another process", "a row is gone", "all are gone"],
)
def test_a_commit_is_superseded_where_a_row_is_not_ours_row_1(found: Mapping[str, PositionRow]) -> None:
    """Also at the very positions that ours would have: another owner may have written those records, too."""
    assert resolve_commit(HOLD, AFTER, found) is CommitOutcome.SUPERSEDED


def test_a_commit_has_happened_where_the_rows_stand_behind_it_row_2() -> None:
    """Writing its rows again would double them."""
    assert resolve_commit(HOLD, AFTER, rows(15, 20)) is CommitOutcome.COMMITTED


def test_a_commit_has_not_happened_where_the_rows_stand_as_before_row_3() -> None:
    """Taking it for done would lose its rows."""
    assert resolve_commit(HOLD, AFTER, rows(10, 20)) is CommitOutcome.ABORTED


@pytest.mark.parametrize("found", [rows(5, 20), rows(12, 20), rows(15, 25), rows(99, 20)])
def test_a_commit_is_superseded_where_the_rows_stand_elsewhere_row_4(
    found: Mapping[str, PositionRow],
) -> None:
    """The database has lost commits, or the rows were changed by hand: they are read again."""
    assert resolve_commit(HOLD, AFTER, found) is CommitOutcome.SUPERSEDED


def test_a_commit_that_moves_nothing_is_a_bug() -> None:
    """Before and after would look alike."""
    with pytest.raises(InvariantError, match="moves no position"):
        resolve_commit(HOLD, dict(HOLD.positions), rows(10, 20))


def test_a_task_is_held_while_every_row_says_so() -> None:
    """One topic that another owner has is enough to have lost the task."""
    assert is_held(HOLD, rows(10, 20))
    assert not is_held(HOLD, rows(10, 20, epoch=8))
    assert not is_held(HOLD, {"a": row("a", 10), "b": row("b", 20, process="another")})


def test_an_epoch_is_above_all_that_were_ever_heard_of() -> None:
    """A database that came back from a backup knows less than the workers."""
    assert next_epoch([], 0) == 1
    assert next_epoch([row("a", 1, epoch=3), row("b", 1, epoch=5)], 0) == 6
    assert next_epoch([row("a", 1, epoch=3)], 9) == 10


# Where the inputs have changed


@pytest.mark.parametrize(
    ("changed", "said", "hint"),
    [
        ({"cluster_id": "staging"}, "in Kafka cluster staging, this is cluster", "its own cluster"),
        ({"topic_id": "id-before"}, "topic a was deleted and created again", "topic-recreated.md"),
        ({"partitions": 1}, "topic a had 1 partition and has 2", "partitions-changed.md"),
    ],
)
def test_positions_in_something_else_are_refused(changed: dict[str, object], said: str, hint: str) -> None:
    """They would be offsets in other records: rows would be lost or doubled without an error."""
    for check in (
        lambda: check_inputs("task", [row("a", 5, **changed)], NOW),
        lambda: plan_positions("group", [row("a", 5, **changed)], NOW, []),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            check()
        assert hint in (caught.value.hint or "")


def test_a_row_of_a_former_input_is_ignored() -> None:
    """It stays for a group that reads it again."""
    check_inputs("task", [row("gone", 5), row("a", 5)], NOW)


# Rows of a group that starts


def everything() -> list[PositionRow]:
    return [row(topic, 5, partition=partition) for topic in NOW for partition in range(2)]


def test_a_new_group_gets_rows_of_all_its_inputs_row_1() -> None:
    """In every partition: each task finds its own."""
    plan, missing = plan_positions("group", [], NOW, [])
    assert plan is SinkPlan.CREATE
    assert missing == [TopicPartition(topic, number) for topic in ("a", "b") for number in range(2)]


def test_a_group_that_existed_and_has_no_rows_is_refused_row_2() -> None:
    """Beginning again would write every row a second time."""
    with pytest.raises(FatalTaskError, match=r"existed before \(offsets of it\)") as caught:
        plan_positions("group", [], NOW, ["offsets of it"])
    assert "sink-positions-lost.md" in (caught.value.hint or "")


@pytest.mark.parametrize("traces", [[], ["offsets of it"]])
def test_a_group_with_all_its_rows_continues_row_3(traces: list[str]) -> None:
    """Whatever else there is of it."""
    assert plan_positions("group", everything(), NOW, traces) == (SinkPlan.PRESENT, [])


def test_an_input_that_was_added_gets_its_rows_row_4() -> None:
    """The others continue where they are."""
    plan, missing = plan_positions("group", [r for r in everything() if r.topic == "a"], NOW, ["offsets"])
    assert plan is SinkPlan.CREATE
    assert missing == [TopicPartition("b", 0), TopicPartition("b", 1)]


@pytest.mark.parametrize("traces", [[], ["offsets of it"]])
def test_an_input_with_some_of_its_rows_is_refused_row_5(traces: list[str]) -> None:
    """They are written in one transaction, so the others were lost."""
    found = [r for r in everything() if (r.topic, r.partition) != ("b", 1)]
    with pytest.raises(FatalTaskError, match=r"of 2 positions in topic b, 1 is missing, b\[1\] first"):
        plan_positions("group", found, NOW, traces)
