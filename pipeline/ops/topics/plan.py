"""Plans the changes that make a cluster's topics as declared: `make_plan`. Pure.

A topic is applied as a unit: if it has a problem, none of its changes is made. Other topics are not affected. For each
topic:

    declared        the cluster has         the plan
    a topic         no such topic           create it
    `deleted`       no such topic           no change
    `deleted`       the topic               delete it; needs --allow, and no running app that reads it
    partitions      fewer                   add partitions, if no app on the cluster reads it; compacted: needs --allow
    partitions      more                    impossible
    replication     another value           impossible with this command
    a setting       another value           set it; needs --allow if records are lost or refused because of it
    no setting      one for this topic      set it to the cluster's default; needs --allow as above
    no topic        a topic                 no change: a missing file deletes no topic

A plan contains absolute states. So a plan that was applied in part is made again, and continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline.core.names import GroupId, never_declared
from pipeline.core.suggestions import Problem, counted, did_you_mean
from pipeline.core.topic_settings import UNMANAGED, loss, same_value
from pipeline.errors import InputError
from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ports import TopicInfo

__all__ = [
    "Change",
    "ClusterFacts",
    "Plan",
    "Readers",
    "TopicAction",
    "TopicPlan",
    "differences",
    "make_plan",
    "uncertain",
]

_RUNBOOK = "runbooks/partitions-changed.md"


class TopicAction(StrEnum):
    """The action for one topic."""

    NONE = "none"
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a topic.

    Attributes:
        what: `partitions`, `replication`, or the name of a setting.
        before: The value now; None if it is unknown.
        after: The new value; None if it is unknown.
        to_default: The topic's own setting is removed.
        from_default: The topic had no setting of its own.
        loss: Which records are lost or refused because of the change; None if there are none.
    """

    what: str
    before: str | None
    after: str | None
    to_default: bool = False
    from_default: bool = False
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The plan for one declared topic. `problems`: why it cannot be applied. `warnings`: its consequences."""

    topic: TopicDeclaration
    action: TopicAction
    changes: Sequence[Change] = ()
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()

    @property
    def to_do(self) -> bool:
        return self.action is not TopicAction.NONE and not self.problems

    @property
    def settings(self) -> dict[str, str | None]:
        """The settings to set. None stands for the cluster's default."""
        return {
            change.what: None if change.to_default else change.after
            for change in self.changes
            if change.what not in {"partitions", "replication"}
        }

    @property
    def grows(self) -> bool:
        return any(change.what == "partitions" for change in self.changes)

    def refused(self, *problems: Problem) -> TopicPlan:
        return replace(self, problems=(*self.problems, *problems))


@dataclass(frozen=True, slots=True)
class Readers:
    """A group that has read a topic.

    `alive`: workers of its app are running. `unknown`: why it is not known whether it reads the topic.
    """

    group: GroupId
    alive: bool = False
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The state of a cluster.

    `names`: of all topics. `topics`: the topics that were read, among them the declared ones. `readers`: of the topics
    that get more partitions or are deleted.
    """

    names: Sequence[str]
    topics: Mapping[str, TopicInfo]
    readers: Mapping[str, Sequence[Readers]] = field(default_factory=dict)

    def default(self, setting: str) -> str | None:
        """The cluster's default of a setting; None if no topic that was read has the default."""
        return next(
            (
                info.config[setting]
                for info in self.topics.values()
                if setting in info.config and setting not in info.overridden
            ),
            None,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The plans of the declared topics, sorted by name, and the names of the topics without a declaration."""

    topics: Sequence[TopicPlan]
    undeclared: Sequence[str]

    @property
    def empty(self) -> bool:
        """Whether the cluster is as declared."""
        return all(each.action is TopicAction.NONE and not each.problems for each in self.topics)

    @property
    def refused(self) -> list[TopicPlan]:
        return [each for each in self.topics if each.problems]


def make_plan(
    declared: Sequence[TopicDeclaration], facts: ClusterFacts, allowed: frozenset[str] = frozenset()
) -> Plan:
    """The changes and the problems of each topic. `allowed`: topics that may lose records.

    Raises InputError if a topic in `allowed` is not declared.
    """
    names = {topic.name for topic in declared}
    for name in sorted(allowed - names):
        raise InputError(f"--allow {name}: the topic is not declared{did_you_mean(name, names)}")
    planned = [
        _of_one(topic, facts, allowed=topic.name in allowed)
        for topic in sorted(declared, key=lambda each: each.name)
    ]
    undeclared = sorted(name for name in facts.names if name not in names and never_declared(name) is None)
    return Plan(tuple(planned), tuple(undeclared))


def uncertain(plan: Plan) -> tuple[list[str], bool]:
    """What the plan still lacks: the topics whose readers must be known; whether a default is unknown."""
    asked = [each.topic.name for each in plan.topics if each.grows or each.action is TopicAction.DELETE]
    unknown = any(
        change.to_default and change.after is None for each in plan.topics for change in each.changes
    )
    return asked, unknown


def differences(topic: TopicDeclaration, actual: TopicInfo, facts: ClusterFacts) -> list[Change]:
    """All differences from the declaration, in the order partitions, replication, settings."""
    found = []
    if topic.partitions != actual.partitions:
        found.append(Change("partitions", str(actual.partitions), str(topic.partitions)))
    if topic.replication and topic.replication != actual.replication:
        found.append(Change("replication", str(actual.replication), str(topic.replication)))
    for name in sorted(topic.config.keys() | (actual.overridden - UNMANAGED)):
        change = _setting(name, topic, actual, facts)
        if change is not None:
            found.append(change)
    return found


def _setting(name: str, topic: TopicDeclaration, actual: TopicInfo, facts: ClusterFacts) -> Change | None:
    before = actual.config.get(name)
    if name not in topic.config:
        after = facts.default(name)
        return Change(name, before, after, to_default=True, loss=loss(name, before, after))
    after = topic.config[name]
    if before is not None and same_value(before, after):
        return None
    from_default = name not in actual.overridden
    return Change(name, before, after, from_default=from_default, loss=loss(name, before, after))


def _of_one(topic: TopicDeclaration, facts: ClusterFacts, *, allowed: bool) -> TopicPlan:
    actual = facts.topics.get(topic.name)
    if topic.deleted:
        return (
            _deletion(topic, facts, allowed=allowed)
            if actual is not None
            else TopicPlan(topic, TopicAction.NONE)
        )
    if actual is None:
        return _creation(topic, facts)
    changes = differences(topic, actual, facts)
    if not changes:
        return TopicPlan(topic, TopicAction.NONE)
    problems: list[Problem] = []
    warnings: list[str] = []
    for change in changes:
        if change.what == "partitions":
            found = _partitions(topic, actual, facts, allowed=allowed)
            problems += found.problems
            warnings += found.warnings
        elif change.what == "replication":
            problems.append(_replication(topic, change))
        elif change.what not in actual.config:
            problems.append(_unknown(change.what, actual.config))
        elif change.loss and not allowed:
            problems.append(_lossy(topic.name, f"{change.what}: {change.loss}"))
        elif change.what == "min.insync.replicas":
            problems += _unwritable(topic, actual.replication)
    return TopicPlan(topic, TopicAction.CHANGE, tuple(changes), tuple(problems), tuple(warnings))


def _creation(topic: TopicDeclaration, facts: ClusterFacts) -> TopicPlan:
    changes = tuple(
        Change(name, facts.default(name), value, from_default=True)
        for name, value in sorted(topic.config.items())
    )
    known = {name for info in facts.topics.values() for name in info.config}
    problems = [_unknown(name, known) for name in topic.config if known and name not in known]
    problems += _unwritable(topic, topic.replication)
    return TopicPlan(topic, TopicAction.CREATE, changes, tuple(problems))


def _deletion(topic: TopicDeclaration, facts: ClusterFacts, *, allowed: bool) -> TopicPlan:
    problems = [] if allowed else [_lossy(topic.name, "all its records are deleted")]
    warnings = []
    for reader in facts.readers.get(topic.name, ()):
        if reader.alive:
            text = f"group {_named(reader.group)} reads the topic, and its workers are running"
            problems.append(
                Problem(text, f"stop them first; to see them: pipeline status {reader.group.app}")
            )
        else:
            warnings.append(
                f"group {_named(reader.group)} has read the topic, and cannot continue without it"
            )
    return TopicPlan(topic, TopicAction.DELETE, (), tuple(problems), tuple(warnings))


def _partitions(
    topic: TopicDeclaration, actual: TopicInfo, facts: ClusterFacts, *, allowed: bool
) -> TopicPlan:
    """The problems and warnings of a change of the number of partitions."""
    none = TopicPlan(topic, TopicAction.CHANGE)
    if topic.partitions < actual.partitions:
        text = f"Kafka cannot remove partitions: the topic has {actual.partitions}, {topic.partitions} are declared"
        hint = f"declare {actual.partitions}, or move to a topic with another name: {_RUNBOOK}"
        return none.refused(Problem(text, hint))
    readers = facts.readers.get(topic.name, ())
    if readers:
        return none.refused(*(_stateful(reader, topic, actual) for reader in readers))
    if "compact" in topic.config.get("cleanup.policy", facts.default("cleanup.policy") or ""):
        why = "the topic is compacted: the old partition of a key that moves keeps its last value forever"
        if not allowed:
            return none.refused(_lossy(topic.name, why))
    text = (
        "added partitions cannot be removed, and most keys move to another partition: consumers that need the order of "
        "a key's records are affected. Workers that write to the topic stop, and must be restarted"
    )
    return replace(none, warnings=(text,))


def _stateful(reader: Readers, topic: TopicDeclaration, actual: TopicInfo) -> Problem:
    if reader.unknown:
        text = f"it is unknown whether group {_named(reader.group)} reads the topic: {reader.unknown}"
        return Problem(text, "repair the journal first; if the app will never run again, delete its journal")
    return Problem(
        f"group {_named(reader.group)} reads the topic: with {counted(topic.partitions, 'partition')} instead of "
        f"{actual.partitions}, the table rows of most keys would be in another partition",
        f"move the app to a topic with more partitions with pipeline migrate: {_RUNBOOK}; "
        f"if the app will never run again, delete {reader.group.journal_topic}",
    )


def _replication(topic: TopicDeclaration, change: Change) -> Problem:
    return Problem(
        f"this command cannot change replication from {change.before} to {change.after}: replicas must be copied",
        f"use kafka-reassign-partitions.sh; or declare {change.before}, or remove `replication` from "
        f"{topic.name}.yaml",
    )


def _unknown(setting: str, known: Mapping[str, str] | set[str]) -> Problem:
    text = f"the cluster has no topic setting {setting!r}{did_you_mean(setting, known)}"
    return Problem(text, "for the settings of Kafka, run: pipeline topics schema")


def _unwritable(topic: TopicDeclaration, replication: int) -> list[Problem]:
    """Kafka accepts a `min.insync.replicas` above the number of replicas, and then refuses every record.

    `replication`: 0 if it is unknown.
    """
    needed = topic.config.get("min.insync.replicas", "")
    if not replication or not needed.isascii() or not needed.isdigit() or int(needed) <= replication:
        return []
    text = (
        f"min.insync.replicas {needed} is more than the number of replicas, {replication}: "
        "Kafka would refuse every record"
    )
    return [Problem(text, f"declare {replication} at most")]


def _lossy(topic: str, why: str) -> Problem:
    return Problem(why, f"to accept that, add --allow {topic}")


def _named(group: GroupId) -> str:
    return f"{group.app}/{group.group}"
