"""Plans the migration of an app to inputs with another number of partitions. Reads Kafka only.

An app cannot continue if the number of partitions of an input changes: the rows of most keys would be in the table of
another task. Instead a new app, with a new name, reads copies of the inputs (`copying.py`), and the old app is stopped.
`survey` returns the copies to make and the problems that prevent them. `cutover.py` checks whether the old app can be
deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.names import GroupId, TopicPartition, held_by_the_pipeline, is_replays
from pipeline.core.problem import Problem
from pipeline.errors import InputError
from pipeline.ops.apps import groups_of, last_positions, listed, tasks_of
from pipeline.ops.migration.copying import Copy, copy_task
from pipeline.ports import Clock, Cluster, JournalReader, TopicInfo

__all__ = ["Migration", "Survey", "survey"]

_MESSAGE_BYTES = "1048588"


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration from app `old` to app `new`. `topics`: the new input topic of each old one."""

    old: str
    new: str
    topics: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.old == self.new:
            raise InputError(
                f"{self.new} is the name of the old app", hint="choose another name for the new app"
            )
        targets = list(self.topics.values())
        for old, new in self.topics.items():
            held = held_by_the_pipeline(new)
            if held:
                raise InputError(f"{new} {held}", hint="copy into a topic of your own")
            if new in self.topics or targets.count(new) > 1:
                raise InputError(
                    f"{old}={new}: topic {new} is also an old topic, or the copy of another one",
                    hint="copy each topic into a topic of its own",
                )


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey.

    `copies`: those whose topics exist. `problems`: reasons not to copy. `notes`: facts that may be intended.
    """

    copies: Sequence[Copy]
    problems: Sequence[Problem]
    notes: Sequence[str]


def survey(
    migration: Migration, cluster: Cluster, reader: JournalReader, clock: Clock, *, incomplete: bool
) -> Survey:
    """The copies to make, and the problems that prevent them. Changes nothing.

    `incomplete`: accept topics whose first records were deleted. Raises InputError (the app does not exist),
    UnreachableError.
    """
    groups = groups_of(migration.old, cluster)
    inputs = _inputs(groups, reader)
    found = cluster.describe(sorted({*migration.topics, *migration.topics.values(), *inputs}))
    problems: list[Problem] = []
    copies = []
    for old, new in migration.topics.items():
        missing = [name for name in (old, new) if name not in found]
        if missing:
            hint = f"declare it in topics/{missing[0]}.yaml and run: pipeline topics apply"
            problems.append(Problem(f"there is no topic {' and no topic '.join(missing)}", hint))
        elif old not in inputs:
            known = ", ".join(sorted(inputs)) or "none"
            problems.append(Problem(f"app {migration.old} does not read {old}", f"its inputs: {known}"))
        else:
            copy = Copy(found[old], found[new], inputs[old])
            copies.append(copy)
            problems += _settings(copy)
            problems += _contents(copy, cluster, reader, clock, incomplete=incomplete)
    problems += _unlike(migration, groups, reader, found)
    notes = [
        f"{name} had {count} partitions and now has {found[name].partitions}, and is not copied: this is correct only "
        f"if {migration.old} itself writes the topic, and {migration.new} writes to another one"
        for name, count in sorted(inputs.items())
        if name not in migration.topics and name in found and found[name].partitions != count
    ]
    return Survey(copies, problems, notes)


def _inputs(groups: Mapping[GroupId, int], reader: JournalReader) -> dict[str, int]:
    """Input topics of all groups, each with the number of partitions that it had when the app started."""
    return {topic: count for group, count in groups.items() for topic in _inputs_of(group, count, reader)}


def _inputs_of(group: GroupId, count: int, reader: JournalReader) -> list[str]:
    read = {topic for task in tasks_of({group: count}) for topic in last_positions(task, reader)}
    return sorted(topic for topic in read if not is_replays(topic))  # the new app has its own replays topic


def _settings(copy: Copy) -> list[Problem]:
    """Settings of the new topic that would change or delete copied records."""
    old, new = copy.old.config, copy.new.config
    wrong = []
    if new.get("message.timestamp.type", "CreateTime") != "CreateTime":
        wrong.append(("message.timestamp.type", "CreateTime", "records would lose their timestamps"))
    if int(new.get("max.message.bytes", _MESSAGE_BYTES)) < int(old.get("max.message.bytes", _MESSAGE_BYTES)):
        wrong.append(
            ("max.message.bytes", old.get("max.message.bytes", _MESSAGE_BYTES), "records may not fit")
        )
    if "compact" in new.get("cleanup.policy", "") and "compact" not in old.get("cleanup.policy", ""):
        wrong.append(("cleanup.policy", old.get("cleanup.policy", "delete"), "records would be removed"))
    return [
        Problem(f"topic {copy.new.name}: {name} is {new.get(name)}: {why}", f"set {name} to {value}")
        for name, value, why in wrong
    ]


def _contents(
    copy: Copy, cluster: Cluster, reader: JournalReader, clock: Clock, *, incomplete: bool
) -> list[Problem]:
    problems = []
    begun = bool(cluster.describe([copy_task(copy.new.name).journal.topic]))
    bounds = {partition: reader.bounds(partition) for partition in copy.partitions}
    gone = [partition for partition, each in bounds.items() if each.start > 0]
    if gone and not begun and not incomplete:
        text = f"{copy.old.name} no longer holds its first records, in {listed(gone)}"
        hint = "the tables of the new app would not include these records; to accept that, add --incomplete"
        problems.append(Problem(text, hint))
    held = [p for p in _partitions(copy.new) if reader.bounds(p).end > 0]
    if held and not begun:
        text = f"topic {copy.new.name} already holds records, in {listed(held)}"
        problems.append(Problem(text, "copy into a new topic without records"))
    retention_ms = int(copy.new.config.get("retention.ms", "-1"))
    if "delete" in copy.new.config.get("cleanup.policy", "delete") and retention_ms >= 0:
        oldest_ms = clock.wall_ms() - retention_ms
        if any(reader.offset_at(p, oldest_ms) > b.start for p, b in bounds.items() if b.stable_end > b.start):
            text = f"topic {copy.new.name}: with retention.ms {retention_ms} Kafka would delete old records immediately"
            problems.append(Problem(text, "set retention.ms to -1 until the migration is complete"))
    return problems


def _unlike(
    migration: Migration, groups: Mapping[GroupId, int], reader: JournalReader, found: Mapping[str, TopicInfo]
) -> list[Problem]:
    """Groups whose inputs would not be co-partitioned after the migration."""
    problems = []
    for group, count in groups.items():
        names = [migration.topics.get(name, name) for name in _inputs_of(group, count, reader)]
        counts = {name: found[name].partitions for name in names if name in found}
        if len(set(counts.values())) > 1 and set(names) & set(migration.topics.values()):
            listed = ", ".join(f"{name} has {number}" for name, number in counts.items())
            text = f"group {group.group} would read topics with different numbers of partitions: {listed}"
            problems.append(
                Problem(text, "copy the others, too, into topics with the same number of partitions")
            )
    return problems


def _partitions(topic: TopicInfo) -> list[TopicPartition]:
    return [TopicPartition(topic.name, number) for number in range(topic.partitions)]
