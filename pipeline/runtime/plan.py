"""The plan of a worker, checked against the cluster once at the start: one GroupPlan for each group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from pipeline.api.app import DeclaredApp
from pipeline.api.context import Sender
from pipeline.api.declarations import DeclaredTopic
from pipeline.api.declared_group import DeclaredGroup
from pipeline.api.table import table_prefix
from pipeline.api.topic_limits import RECORD_OVERHEAD_BYTES, accepted_by
from pipeline.core.dedup import topic_tag
from pipeline.core.event_time import AHEAD_MS
from pipeline.core.inputs import TaskInputs
from pipeline.core.journal_format import Identity, InputFacts
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.core.suggestions import counted, did_you_mean, topic_hint
from pipeline.errors import ConfigError
from pipeline.ports import TopicInfo
from pipeline.runtime.dead_letter_topics import dead_letter_topics, wants_letters
from pipeline.runtime.environment import Environment
from pipeline.runtime.task.trace_links import TRACEPARENT_BYTES
from pipeline.runtime.task_count import task_count_of

__all__ = [
    "PARTITIONER",
    "GroupPlan",
    "TopicChange",
    "inputs_changed",
    "journal_changed",
    "largest_letter",
    "outputs_changed",
    "plan_groups",
    "sender_of",
]

PARTITIONER = "murmur2_random"
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The plan of one group."""

    group: DeclaredGroup
    partitions: int
    identity: Identity
    largest_input: int  # maximum bytes of a record of an input topic
    largest_letter: int  # maximum bytes of a record of the dead-letter topic; 0 if there is none
    placed_by: Mapping[str, int]  # partitions of each topic of the app, for the partitioning of outputs
    letters_id: str = ""  # of the dead-letter topic
    ahead_ms: int = AHEAD_MS  # how far event times may be ahead of the wall clock
    replaces: str = ""  # the consumer group of the program that the app was before

    @property
    def id(self) -> GroupId:
        return self.group.id

    @property
    def task_count(self) -> int:
        """The number of tasks."""
        return self.identity.tasks or self.partitions

    @property
    def input_count(self) -> int:
        """The number of partitions of all its inputs together, with those of replays."""
        return len(self.identity.inputs) * self.partitions

    @property
    def tasks(self) -> list[TaskId]:
        return [TaskId(self.id.app, self.id.group, number) for number in range(self.task_count)]

    @property
    def reads_replays(self) -> bool:
        """Whether the replays topic is an additional input."""
        return self.id.replays_topic in self.identity.inputs

    @property
    def lacks_letter_topics(self) -> bool:
        """Whether the topics of dead letters and replays must still be created."""
        return wants_letters(self.group) and not (self.largest_letter and self.reads_replays)

    def check_replays(self) -> None:
        """Check that the replays topic has as many partitions as the inputs. Raises ConfigError.

        The journal is checked first, because its errors are more specific if the inputs have changed.
        """
        found = self.identity.inputs.get(self.id.replays_topic)
        if found is not None and found.partitions != self.partitions:
            raise ConfigError(
                f"topic {self.id.replays_topic} has {counted(found.partitions, 'partition')}, and the inputs of group "
                f"{self.id.app}/{self.id.group} have {self.partitions}: a replay is in the partition of its record",
                hint="the pipeline creates that topic itself: delete the topic that was created by another program",
            )

    def task_of(self, partition: int) -> int:
        """The number of the task that reads a partition."""
        return partition % self.task_count

    def inputs_of(self, number: int) -> dict[str, TopicPartition]:
        """The inputs of one task, by name."""
        return self.names_of(number).all(dict.fromkeys(self.identity.inputs, self.partitions))

    def record_inputs_of(self, number: int) -> dict[str, TopicPartition]:
        """The inputs of one task by name, without replays, which do not move the clock."""
        topics = [topic.name for topic in self.group.inputs]
        return self.names_of(number).all(dict.fromkeys(topics, self.partitions))

    def names_of(self, number: int) -> TaskInputs:
        """The names of the inputs of one task."""
        return TaskInputs(number, self.identity.tasks)

    def numbers_of(self, number: int) -> list[int]:
        """The partitions of one task in each of its topics."""
        return list(self.names_of(number).partitions(self.partitions))

    def partitions_of(self, number: int) -> list[TopicPartition]:
        """The input partitions of one task."""
        return list(self.inputs_of(number).values())


def plan_groups(
    app: DeclaredApp, groups: Sequence[DeclaredGroup], environment: Environment
) -> tuple[list[GroupPlan], Mapping[DeclaredTopic[Any, Any], Sender]]:
    """Check the declarations against the cluster. Raises ConfigError for a mismatch; UnreachableError."""
    if not groups:
        raise ConfigError(
            f"app {app.name} has no handlers and no sinks", hint="register one with @app.handler(topic)"
        )
    cluster_id = environment.cluster.cluster_id()
    topics = environment.cluster.describe(list(app.topics))
    missing = [name for name in app.topics if name not in topics]
    if missing:
        raise _missing(app, missing, environment)
    letters = dead_letter_topics(groups, environment.cluster)
    placed_by = {name: topics[name].partitions for name in app.topics}
    senders = {topic: sender_of(topic, topics[topic.name], environment) for topic in app.topics.values()}
    ahead_ms = min([AHEAD_MS, *[sender[3].after_ms for sender in senders.values()]])
    plans = [
        GroupPlan(
            group,
            *_shape(app, group, topics, cluster_id, letters.get(group.id.replays_topic), environment),
            max(_message_bytes(topics[topic.name]) for topic in group.inputs),
            largest_letter(letters.get(group.id.dead_letter_topic)),
            placed_by,
            info.topic_id if (info := letters.get(group.id.dead_letter_topic)) is not None else "",
            ahead_ms,
            app.replaces,
        )
        for group in groups
    ]
    return plans, senders


def _missing(app: DeclaredApp, missing: Sequence[str], environment: Environment) -> ConfigError:
    """The error for topics that the cluster does not have, with similar names of topics that it has."""
    known = [name for name in environment.cluster.topics() if name not in missing]
    found = [f"{name}{did_you_mean(name, known)}" for name in missing]
    return ConfigError(
        f"app {app.name}: the cluster has no topic {', '.join(found)}",
        hint=topic_hint(missing, named=found != list(missing)),
    )


class TopicChange(NamedTuple):
    """Why a task must stop because of its topics, and what to do about it."""

    reason: str
    hint: str


def inputs_changed(plan: GroupPlan, now: Mapping[str, TopicInfo]) -> TopicChange | None:
    """Why the group must stop because of its current inputs; None if they have not changed."""
    recreated, moved = "follow runbooks/topic-recreated.md", "follow runbooks/partitions-changed.md"
    for name, facts in plan.identity.inputs.items():
        current = now.get(name)
        if current is None:
            return TopicChange(f"topic {name} was deleted", recreated)
        if current.topic_id != facts.topic_id:
            return TopicChange(f"topic {name} was deleted and created again", recreated)
        if current.partitions != facts.partitions:
            return TopicChange(
                f"topic {name} had {counted(facts.partitions, 'partition')} and has {current.partitions}",
                moved,
            )
    return None


def outputs_changed(
    plan: GroupPlan, written: Iterable[str], now: Mapping[str, TopicInfo]
) -> TopicChange | None:
    """Why a task must stop writing to the topics `written`; None if keys are still mapped to the same partitions.

    Without this check, a commit with an output for a deleted topic would be aborted and retried forever.
    """
    letters = plan.id.dead_letter_topic
    if plan.largest_letter and letters not in now:
        again = "start the worker again: it creates that topic"
        return TopicChange(f"topic {letters}, which this task writes to, was deleted", again)
    for name in written:
        before, current = plan.placed_by.get(name), now.get(name)
        if before is not None and current is None:
            return TopicChange(
                f"topic {name}, which this task writes to, was deleted",
                "create it again (if it is declared: pipeline topics apply), and restart the worker, which then "
                "handles the records that are not committed",
            )
        if before is not None and current is not None and current.partitions != before:
            return TopicChange(
                f"topic {name} had {counted(before, 'partition')} and has {current.partitions}, and this task "
                "writes to it: keys would move to other partitions than their readers' state",
                "follow runbooks/partitions-changed.md",
            )
    return None


def journal_changed(plan: GroupPlan, before: str, now: Mapping[str, TopicInfo]) -> TopicChange | None:
    """Why a group must stop because of its journal, whose id was `before`; None if it is the same.

    An empty `before`: the group has no journal.
    """
    name = plan.id.journal_topic
    current = now.get(name)
    if not before or (current is not None and current.topic_id == before):
        return None
    again = " and created again" if current is not None else ""
    return TopicChange(
        f"its journal {name} was deleted{again}",
        "keep the state directory, and follow runbooks/journal-lost.md",
    )


def _shape(
    app: DeclaredApp,
    group: DeclaredGroup,
    topics: Mapping[str, TopicInfo],
    cluster_id: str,
    replays: TopicInfo | None,
    environment: Environment,
) -> tuple[int, Identity]:
    inputs = group.inputs
    counts = {topic.name: topics[topic.name].partitions for topic in inputs}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ConfigError(
            f"app {app.name}, group {group.name}: its input topics must have the same number of partitions: {listed}",
            hint="create them with the same number, or read them in separate groups; if partitions were added later: "
            "runbooks/partitions-changed.md",
        )
    _check_tags(group)
    for timers in group.timer_sets.values():
        if timers.fires.name not in group.steps:
            raise ConfigError(
                f"{timers.label} have no function, so due timers would be lost",
                hint="register one: @app.on_timer(timers), @group.on_timer(timers)",
            )
    prefixes: dict[bytes, str] = {}
    for name in group.tables:
        other = prefixes.setdefault(table_prefix(name), name)
        if other != name:
            raise ConfigError(
                f"tables, windows or timers {other} and {name} of group {group.name} have the same prefix on disk",
                hint="rename one",
            )
    shape = ";".join(sorted(f"{t.name}:{t.key.schema}->{t.value.schema}" for t in inputs))
    partitions = next(iter(counts.values()))
    read = [topics[topic.name] for topic in inputs]
    if replays is not None:
        read.append(replays)
    return partitions, Identity(
        cluster_id=cluster_id,
        partitioner=PARTITIONER,
        inputs={info.name: InputFacts(info.topic_id, info.partitions) for info in read},
        tables={name: table.fingerprint for name, table in group.tables.items()},
        topology=blake2b(shape.encode(), digest_size=8).hexdigest(),
        tasks=task_count_of(group, partitions, environment),
    )


def _check_tags(group: DeclaredGroup) -> None:
    """Refuse two topics whose tags are equal: their ids would share rows."""
    tags: dict[bytes, str] = {}
    for name in (topic.name for topic in group.inputs if topic.dedup is not None):
        other = tags.setdefault(topic_tag(name), name)
        if other != name:
            raise ConfigError(
                f"topics {other} and {name} of group {group.name} have the same tag in its dedup table",
                hint="read one of them in another group",
            )


def sender_of(topic: DeclaredTopic[Any, Any], info: TopicInfo, environment: Environment) -> Sender:
    """The sender for a topic with its current settings."""
    reserved = TRACEPARENT_BYTES if environment.tracer.propagates else 0
    encode_key: Callable[[Any], bytes | None] = topic.key.encode
    accepted = accepted_by(topic.name, info.config, environment.clock.wall_ms, reserved)
    return topic.name, encode_key, topic.value.admit, accepted


def largest_letter(info: TopicInfo | None) -> int:
    """Maximum bytes of a record of the dead-letter topic; 0 if there is none."""
    return 0 if info is None else _message_bytes(info) - RECORD_OVERHEAD_BYTES


def _message_bytes(info: TopicInfo) -> int:
    return int(info.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))
