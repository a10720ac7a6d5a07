"""A plan carried out: what is done, in which order, and what is left when something fails half-way."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, UnreachableError
from pipeline.ops.topics.applying import carry_out, checked
from pipeline.ops.topics.declarations import TopicDeclaration
from tests.ops.topics.conftest import Case, declare


def test_what_is_applied_leaves_an_empty_plan(case: Case) -> None:
    """Create, change, back to the default, grow and delete in one run; a second run does nothing."""
    case.create("orders", segment_bytes="2000000")
    case.create("old")
    case.create("other")
    declared = [
        declare("orders", 6, retention_ms="-1"),
        declare("new", 2, cleanup_policy="compact"),
        declare("old", 4, "deleted: true"),
    ]
    outcomes = case.apply(*declared, allow="old")
    assert {o.plan.topic.name: o.done for o in outcomes} == {
        "new": ("created",),
        "old": ("deleted",),
        "orders": ("configured", "grown to 6 partitions"),
    }
    assert case.plan(*declared).empty
    assert case.apply(*declared) == []
    assert case.info("orders").overridden == {"retention.ms"}


def test_what_is_refused_does_not_hold_up_the_others(case: Case) -> None:
    """One team's mistake is not the outage of all."""
    case.create("orders", partitions=8)
    outcomes = case.apply(declare(), declare("new"))
    assert [o.plan.topic.name for o in outcomes] == ["new"]
    assert case.info("orders").partitions == 8


def test_what_the_brokers_would_refuse_is_known_before_anything_is_done(case: Case) -> None:
    """A value that no setting can take is found by asking, not by half of an apply."""
    case.create("orders")
    plan = checked(case.plan(declare("orders", 6, retention_ms="a week")), case.cluster)
    (planned,) = plan.topics
    assert not planned.to_do
    assert "Invalid value a week" in planned.problems[0].text
    assert carry_out(plan, case.cluster, lambda _: None) == []
    assert case.info().partitions == 4
    new = checked(case.plan(declare("new", retention_ms="a week")), case.cluster)
    assert "Invalid value a week" in new.topics[0].problems[0].text


@pytest.mark.parametrize("others", [False, True])
def test_a_misspelt_setting_is_known_to_a_plan_before_any_declared_topic_is_there(
    case: Case, *, others: bool
) -> None:
    """The first plan of a new cluster is the first that anybody makes."""
    if others:
        case.create("nobody-declares-this")
    planned = case.one(declare(retention_mss="1"))
    (problem,) = planned.problems
    assert "retention.mss" in problem.text
    assert "did you mean 'retention.ms'?" in problem.text + problem.hint
    assert case.one(declare(retention_ms="1")).problems == ()
    assert case.cluster.topics() == (["nobody-declares-this"] if others else [])


@pytest.mark.parametrize("call", ["create", "configure", "grow", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_an_outage_in_each_step_leaves_a_plan_that_continues(case: Case, call: str, *, after: bool) -> None:
    """The next run reads the state of the cluster, and does the remaining steps."""
    case.create("a", retention_ms="-1")
    case.create("b")
    case.create("z")
    declared = [
        declare("a", 6, retention_ms="-1", segment_bytes="2000000"),
        declare("b", 4, "deleted: true"),
        declare("c", 1),
    ]
    plan = checked(case.plan(*declared, allow="b"), case.cluster)
    case.broker.fail_next(call, UnreachableError("away"), after=after)
    with pytest.raises(UnreachableError) as error:
        carry_out(plan, case.cluster, lambda _: None)
    assert re.search("[0-2] of 3 topics (was|were) applied", error.value.message)
    assert "run the same command again" in str(error.value.hint)
    case.apply(*declared, allow="b")
    assert case.plan(*declared).empty


def test_a_step_that_is_refused_says_what_was_done_before(case: Case) -> None:
    """Brokers can refuse a change that they accepted in the check, for example after another change."""
    case.create("orders")
    case.create("z")
    plan = case.plan(declare("orders", 6, retention_ms="-1"), declare("new", 1))
    case.broker.fail_next("grow", ConfigError("orders: no permission", hint="ask"))
    told: list[str] = []
    new, orders = carry_out(plan, case.cluster, lambda outcome: told.append(outcome.plan.topic.name))
    assert told == ["new", "orders"]
    assert new.problem is None
    assert orders.problem is not None
    assert orders.problem.text == "orders: no permission; before that it was configured"
    assert orders.problem.hint == "ask"


_topics = st.builds(
    declare,
    st.sampled_from(["a", "b", "c"]),
    st.integers(1, 4),
    retention_ms=st.sampled_from(["-1", "60000", "604800000"]),
    cleanup_policy=st.sampled_from(["compact", "delete", "delete,compact", ""]),
    segment_bytes=st.integers(1_048_576, 2_000_000).map(str),
)


@given(st.lists(st.lists(_topics, unique_by=lambda t: t.name, min_size=1), max_size=5), st.integers(0, 4))
def test_after_any_history_apply_makes_it_so_or_says_why_not(
    history: list[list[TopicDeclaration]], outage: int
) -> None:
    """Whatever was declared before, and wherever one run broke off."""
    case = Case()
    for turn, declared in enumerate(history):
        allow = " ".join(topic.name for topic in declared)
        if turn == outage:
            case.broker.fail_next("configure", UnreachableError("away"), after=True)
        try:
            case.apply(*declared, allow=allow)
        except UnreachableError:
            continue
        plan = checked(case.plan(*declared, allow=allow), case.cluster)
        assert all(not each.to_do for each in plan.topics)
        assert all("cannot remove partitions" in each.problems[0].text for each in plan.refused)
