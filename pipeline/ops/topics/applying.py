"""Applies a plan: first `checked`, then `carry_out`. Topics are independent, and are applied one after the other.

| step | what | a crash after it leaves |
| --- | --- | --- |
| 1 check | ask the brokers whether they would accept the change of each topic | no change |
| 2 create | create the topic with its settings | the topic as declared |
| 3 configure | set all settings of a topic in one request | the settings as declared, perhaps not the partitions |
| 4 grow | add the missing partitions | the topic as declared |
| 5 delete | delete a topic whose declaration says `deleted` | no topic |

Each step sets an absolute state, and waits until the cluster shows it. So after a crash the next run makes a new plan
from the cluster's state, and does the remaining steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.core.suggestions import Problem, counted, did_you_mean
from pipeline.core.topic_settings import SETTINGS, UNMANAGED
from pipeline.errors import ConfigError, UnreachableError
from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ops.topics.plan import Plan, TopicAction, TopicPlan
from pipeline.ports import Cluster

__all__ = ["TopicResult", "carry_out", "checked", "checked_topic"]


@dataclass(frozen=True, slots=True)
class TopicResult:
    """The result for one topic. `done`: the steps that were done. `problem`: why a step failed; None if none did."""

    plan: TopicPlan
    done: tuple[str, ...] = ()
    problem: Problem | None = None


def checked(plan: Plan, cluster: Cluster) -> Plan:
    """The plan, with the changes that the brokers would refuse as problems. Changes nothing.

    Raises UnreachableError.
    """
    topics = [checked_topic(each, cluster) if each.to_do else each for each in plan.topics]
    return replace(plan, topics=tuple(topics))


def carry_out(plan: Plan, cluster: Cluster, report: Callable[[TopicResult], None]) -> list[TopicResult]:
    """Apply each topic of the plan that has no problem. `report` is called after each topic.

    If the brokers refuse a step, the other topics are still applied. Raises UnreachableError, whose message says how
    many topics were done.
    """
    waiting = [each for each in plan.topics if each.to_do]
    outcomes: list[TopicResult] = []
    for each in waiting:
        try:
            outcome = _carry_out(each, cluster)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error.message}\n{len(outcomes)} of {counted(len(waiting), 'topic')} "
                f"{'was' if len(outcomes) == 1 else 'were'} applied; "
                f"{each.topic.name} perhaps in part",
                hint="run the same command again: it applies the remaining changes",
            ) from error
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def checked_topic(each: TopicPlan, cluster: Cluster) -> TopicPlan:
    """`checked` for one topic."""
    try:
        if each.action is TopicAction.CREATE:
            cluster.create([each.topic.spec], check_only=True)
        if each.action is TopicAction.CHANGE:
            if each.settings:
                cluster.configure(each.topic.name, each.settings, check_only=True)
            if each.grows:
                cluster.grow(each.topic.name, each.topic.partitions, check_only=True)
    except ConfigError as error:
        return each.refused(Problem(error.message, f"{_meant(each.topic)} {error.hint or ''}".strip()))
    return each


def _meant(topic: TopicDeclaration) -> str:
    """Suggestions for settings that Kafka does not have."""
    unknown = sorted(topic.config.keys() - SETTINGS.keys() - UNMANAGED)
    guesses = [did_you_mean(name, SETTINGS).removeprefix("; ") for name in unknown]
    return " ".join(filter(None, guesses))


def _carry_out(each: TopicPlan, cluster: Cluster) -> TopicResult:
    name, done = each.topic.name, list[str]()
    try:
        if each.action is TopicAction.CREATE:
            cluster.create([each.topic.spec])  # 2
            done.append("created")
        if each.settings and each.action is TopicAction.CHANGE:
            cluster.configure(name, each.settings)  # 3
            done.append("configured")
        if each.grows:
            cluster.grow(name, each.topic.partitions)  # 4
            done.append(f"grown to {counted(each.topic.partitions, 'partition')}")
        if each.action is TopicAction.DELETE:
            cluster.delete([name])  # 5
            done.append("deleted")
    except ConfigError as error:
        before = f"; before that it was {' and '.join(done)}" if done else ""
        return TopicResult(each, tuple(done), Problem(error.message + before, error.hint or ""))
    return TopicResult(each, tuple(done))
