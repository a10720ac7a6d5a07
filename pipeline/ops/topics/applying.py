"""A plan carried out: `checked`, then `carry_out`. Topics are independent of each other, and go one by one.

| step | what | a crash now leaves |
| --- | --- | --- |
| 1 check | the brokers say of each topic whether they would, and change nothing | nothing new |
| 2 create | the topic, with its settings | it is there as declared |
| 3 configure | all settings of a topic at once | they are as declared; its partitions perhaps not yet |
| 4 grow | the missing partitions | the topic is as declared |
| 5 delete | a topic with a tombstone | it is gone |

Each step says how things are to be, not what to add, and is waited for until the cluster shows it. So what a crash
leaves is planned anew, and the next run does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.core.problem import Problem
from pipeline.core.suggestions import did_you_mean
from pipeline.core.topic_settings import SETTINGS, UNMANAGED
from pipeline.errors import ConfigError, UnreachableError
from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ops.topics.plan import Plan, TopicAction, TopicPlan
from pipeline.ports import Cluster

__all__ = ["TopicResult", "carry_out", "checked", "checked_topic"]


@dataclass(frozen=True, slots=True)
class TopicResult:
    """What became of one topic. `problem`: why not everything was done; `done`: the steps that were."""

    plan: TopicPlan
    done: tuple[str, ...] = ()
    problem: Problem | None = None


def checked(plan: Plan, cluster: Cluster) -> Plan:
    """The plan, with what the brokers would refuse among its problems. Changes nothing. Raises UnreachableError."""
    topics = [checked_topic(each, cluster) if each.to_do else each for each in plan.topics]
    return replace(plan, topics=tuple(topics))


def carry_out(plan: Plan, cluster: Cluster, report: Callable[[TopicResult], None]) -> list[TopicResult]:
    """Do what is to be done and can be; `report` is told of each topic as it is done.

    What the brokers refuse ends its topic and not the others. Raises UnreachableError, which says what was done.
    """
    waiting = [each for each in plan.topics if each.to_do]
    outcomes: list[TopicResult] = []
    for each in waiting:
        try:
            outcome = _carry_out(each, cluster)
        except UnreachableError as error:
            raise UnreachableError(
                f"{error.message}\n{len(outcomes)} of {len(waiting)} topics were done before; "
                f"{each.topic.name} perhaps in part",
                hint="nothing is lost: run the same command again, and it does the rest",
            ) from error
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def checked_topic(each: TopicPlan, cluster: Cluster) -> TopicPlan:
    """The same of one topic."""
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
    """What may be meant by settings that Kafka has not."""
    odd = sorted(topic.config.keys() - SETTINGS.keys() - UNMANAGED)
    guesses = [did_you_mean(name, SETTINGS).removeprefix("; ") for name in odd]
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
            done.append(f"grown to {each.topic.partitions} partitions")
        if each.action is TopicAction.DELETE:
            cluster.delete([name])  # 5
            done.append("deleted")
    except ConfigError as error:
        before = f"; before that it was {' and '.join(done)}" if done else ""
        return TopicResult(each, tuple(done), Problem(error.message + before, error.hint or ""))
    return TopicResult(each, tuple(done))
