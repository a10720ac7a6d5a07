"""What it takes to make a cluster's topics as they are declared: `make_plan`. Pure.

A topic is one unit: nothing of it is done while anything speaks against it (`problems`), and other topics do not wait
for it. By row:

    declared     the cluster has      then
    yes          no such topic        it is created
    deleted      no such topic        nothing
    deleted      the topic            it is deleted: with --allow, and while no living app reads it
    more         fewer partitions     they are added: while no app on the cluster reads it; compacted: with --allow
    fewer        more partitions      impossible
    replication  another one          impossible from here
    setting      another value        it is set; with --allow where records are lost or refused for that
    no setting   one of the topic's   it returns to the cluster's default; the same
    not at all   a topic              nothing: a file that is forgotten deletes nothing

Everything in a plan is absolute, so one that was done in part is planned again and continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline.core.names import GroupId, never_declared
from pipeline.core.problem import Problem
from pipeline.core.suggestions import did_you_mean
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
    """What is to be done with one topic."""

    NONE = "none"
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is to be another one: `partitions`, `replication` or a setting.

    `before` and `after` are what is in force; None: not known. `to_default`: a setting that the topic is to have no
    more for itself. `from_default`: one that it did not have. `loss`: what that loses or refuses, in words.
    """

    what: str
    before: str | None
    after: str | None
    to_default: bool = False
    from_default: bool = False
    loss: str | None = None


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """What is to be done with one declared topic. `problems`: why nothing is; `warnings`: what to know before."""

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
        """The settings to set; None: back to the default."""
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
    """A group that has read a topic. `alive`: workers of its app run now. `unknown`: its journal cannot be read."""

    group: GroupId
    alive: bool = False
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A cluster as it is. `names`: of all its topics; `topics`: those that were looked at, the declared ones among
    them; `readers`: of topics that are to grow or go.
    """

    names: Sequence[str]
    topics: Mapping[str, TopicInfo]
    readers: Mapping[str, Sequence[Readers]] = field(default_factory=dict)

    def default(self, setting: str) -> str | None:
        """The cluster's default of a setting, where a topic that was looked at follows it."""
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
    """Every declared topic, by name, and the names of those without a declaration."""

    topics: Sequence[TopicPlan]
    undeclared: Sequence[str]

    @property
    def empty(self) -> bool:
        """The cluster is as declared."""
        return all(each.action is TopicAction.NONE and not each.problems for each in self.topics)

    @property
    def refused(self) -> list[TopicPlan]:
        return [each for each in self.topics if each.problems]


def make_plan(
    declared: Sequence[TopicDeclaration], facts: ClusterFacts, allowed: frozenset[str] = frozenset()
) -> Plan:
    """What is to be done, and what speaks against it. `allowed`: topics that may lose records.

    Raises InputError when --allow names a topic without a declaration.
    """
    names = {topic.name for topic in declared}
    for name in sorted(allowed - names):
        raise InputError(f"--allow {name}: no such topic is declared{did_you_mean(name, names)}")
    planned = [
        _of_one(topic, facts, allowed=topic.name in allowed)
        for topic in sorted(declared, key=lambda each: each.name)
    ]
    undeclared = sorted(name for name in facts.names if name not in names and never_declared(name) is None)
    return Plan(tuple(planned), tuple(undeclared))


def uncertain(plan: Plan) -> tuple[list[str], bool]:
    """What must be looked up before a plan counts: topics whose readers matter; whether a default is not known."""
    asked = [each.topic.name for each in plan.topics if each.grows or each.action is TopicAction.DELETE]
    unknown = any(
        change.to_default and change.after is None for each in plan.topics for change in each.changes
    )
    return asked, unknown


def differences(topic: TopicDeclaration, actual: TopicInfo, facts: ClusterFacts) -> list[Change]:
    """Everything that is not as declared, in the order partitions, replication, settings."""
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
            text = f"group {_named(reader.group)} reads it, and its workers run"
            problems.append(Problem(text, f"stop them first: pipeline status {reader.group.app}"))
        else:
            warnings.append(f"group {_named(reader.group)} has read it, and cannot continue without it")
    return TopicPlan(topic, TopicAction.DELETE, (), tuple(problems), tuple(warnings))


def _partitions(
    topic: TopicDeclaration, actual: TopicInfo, facts: ClusterFacts, *, allowed: bool
) -> TopicPlan:
    """The problems and warnings of another number of partitions."""
    none = TopicPlan(topic, TopicAction.CHANGE)
    if topic.partitions < actual.partitions:
        text = (
            f"Kafka can not take partitions away: it has {actual.partitions}, {topic.partitions} are declared"
        )
        hint = f"declare {actual.partitions}, or move to a topic of another name: {_RUNBOOK}"
        return none.refused(Problem(text, hint))
    readers = facts.readers.get(topic.name, ())
    if readers:
        return none.refused(*(_stateful(reader, topic, actual) for reader in readers))
    if "compact" in topic.config.get("cleanup.policy", facts.default("cleanup.policy") or ""):
        why = "it is compacted: of keys that move, the old partition keeps a last value for ever"
        if not allowed:
            return none.refused(_lossy(topic.name, why))
    text = (
        "partitions are added for good, and most keys move to another one: whoever orders or counts by key must know. "
        "Workers that write to it stop, and go on when they are started again"
    )
    return replace(none, warnings=(text,))


def _stateful(reader: Readers, topic: TopicDeclaration, actual: TopicInfo) -> Problem:
    if reader.unknown:
        text = f"whether group {_named(reader.group)} reads it cannot be told: {reader.unknown}"
        return Problem(text, "repair the journal first. If the app will never run again, delete its journal")
    return Problem(
        f"group {_named(reader.group)} reads it: with {topic.partitions} partitions instead of {actual.partitions} "
        "most keys would lie apart from their rows in its tables",
        f"move the app to a wider topic with pipeline migrate: {_RUNBOOK}; "
        f"or delete {reader.group.journal_topic}, if the app is gone for good",
    )


def _replication(topic: TopicDeclaration, change: Change) -> Problem:
    return Problem(
        f"replication {change.before} cannot be made {change.after} from here: replicas have to be copied",
        f"kafka-reassign-partitions.sh does it; or declare {change.before}, or leave replication out of "
        f"{topic.name}.yaml",
    )


def _unknown(setting: str, known: Mapping[str, str] | set[str]) -> Problem:
    text = f"the cluster knows no topic setting {setting!r}{did_you_mean(setting, known)}"
    return Problem(text, "pipeline topics schema lists those of Kafka")


def _unwritable(topic: TopicDeclaration, replication: int) -> list[Problem]:
    """Kafka takes more required replicas than there are, and then refuses every record. `replication` 0: not known."""
    needed = topic.config.get("min.insync.replicas", "")
    if not replication or not needed.isascii() or not needed.isdigit() or int(needed) <= replication:
        return []
    text = f"min.insync.replicas {needed} is more than its {replication} replicas: no record could be written"
    return [Problem(text, f"declare {replication} at most")]


def _lossy(topic: str, why: str) -> Problem:
    return Problem(why, f"if that is meant: --allow {topic}")


def _named(group: GroupId) -> str:
    return f"{group.app}/{group.group}"
