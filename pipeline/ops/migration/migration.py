"""Plans the migration of an app to inputs with another number of partitions, or to another number of tasks.

Reads Kafka only.

An app cannot continue if the number of partitions of an input changes: the rows of most keys would be in the table of
another task. Instead a new app, with a new name, reads copies of the inputs (`copying.py`), and the old app is stopped.
The number of tasks of a group cannot change, either. Another number needs a new app, too, but no copies: it reads the
same topics. `survey` returns the copies to make and the problems that prevent them. `unfinished` checks whether the
migration is complete, so that the old app can be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.inputs import TaskInputs
from pipeline.core.names import (
    GroupId,
    TaskId,
    TopicPartition,
    held_by_the_pipeline,
    is_replays,
    workers_group,
)
from pipeline.core.suggestions import Problem, are, counted
from pipeline.errors import InputError
from pipeline.ops.apps import groups_of, holding_more, inputs_of, last_entry_before, listed, tasks_of
from pipeline.ops.migration.copying import Copy, copied_up_to, copy_task
from pipeline.ports import Clock, Cluster, JournalReader, TopicInfo

__all__ = ["Migration", "Survey", "survey", "unfinished"]

_MESSAGE_BYTES = "1048588"


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration from app `old` to app `new`.

    `topics`: the new input topic of each old one; empty: the new app reads the same topics.
    """

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
    if not migration.topics and not incomplete:
        problems += _expired([found[name] for name in sorted(inputs) if name in found], reader)
    notes = [
        f"{name} had {counted(count, 'partition')} and now has {found[name].partitions}, and is not copied: this is "
        "correct only "
        f"if {migration.old} itself writes the topic, and {migration.new} writes to another one"
        for name, count in sorted(inputs.items())
        if name not in migration.topics and name in found and found[name].partitions != count
    ]
    return Survey(copies, problems, notes)


def _inputs(groups: Mapping[GroupId, int], reader: JournalReader) -> dict[str, int]:
    """Input topics of all groups, each with the number of partitions that it had when the app started."""
    return {
        topic: partitions
        for group, tasks in groups.items()
        for topic, partitions in _inputs_of(group, tasks, reader).items()
    }


def _inputs_of(group: GroupId, tasks: int, reader: JournalReader) -> dict[str, int]:
    """The inputs without the topic of replays: the new app has one of its own."""
    found = inputs_of(group, tasks, reader)
    return {topic: partitions for topic, partitions in found.items() if not is_replays(topic)}


def _expired(topics: Sequence[TopicInfo], reader: JournalReader) -> list[Problem]:
    """The inputs that the new app cannot read from their first records."""
    problems = []
    for topic in topics:
        gone = [place for place in _partitions(topic) if reader.bounds(place).start > 0]
        if gone:
            text = f"{topic.name} no longer holds its first records, in {listed(gone)}"
            hint = (
                "the tables of the new app would not include these records; to accept that, or if only the old app "
                "writes this topic, add --incomplete"
            )
            problems.append(Problem(text, hint))
    return problems


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


def unfinished(
    migration: Migration, surveyed: Survey, cluster: Cluster, reader: JournalReader
) -> list[Problem]:
    """The problems of the survey and the steps that are missing; empty if the migration is complete.

    The new app has processed everything if two readings, one after the other, find each task at the end of its inputs
    and at the same journal entry. The second reading includes what a group wrote before the first one, and equal
    entries mean that no group has written since.
    """
    problems = list(surveyed.problems)
    if members := cluster.member_ids(workers_group(migration.old)):
        hint = "stop them; Kafka removes a killed worker from the group after 10 s"
        text = f"{counted(len(members), 'worker')} of {migration.old} {are(len(members))} alive"
        problems.append(Problem(text, hint))
    for copy in surveyed.copies:
        if left := _not_copied(copy, cluster, reader):
            text = f"{copy.old.name} holds records that are not copied, in {listed(left)}"
            problems.append(Problem(text, "stop its producers, then: pipeline migrate run"))
    try:
        groups = groups_of(migration.new, cluster)
    except InputError:
        hint = "start its workers: pipeline worker MODULE:APP"
        return [*problems, Problem(f"app {migration.new} has not started", hint)]
    first, second = _read_progress(groups, reader), _read_progress(groups, reader)
    read = {topic for seen in second.values() for topic in seen.reads}
    if unread := sorted(set(migration.topics.values()) - read):
        text = f"app {migration.new} does not read {', '.join(unread)}"
        problems.append(Problem(text, "let its handlers read the new topics"))
    if behind := sorted({partition for seen in second.values() for partition in seen.behind}):
        text = f"app {migration.new} has not processed all of {listed(behind)}"
        problems.append(Problem(text, f"wait for it: pipeline status {migration.new}"))
    elif idle := [str(task) for task, seen in second.items() if not seen.reads]:
        text = f"no worker has started task {', '.join(idle[:3])} of app {migration.new}"
        problems.append(Problem(text, "start its workers: pipeline worker MODULE:APP"))
    elif first != second:
        text = f"app {migration.new} is still processing records"
        problems.append(Problem(text, "run the command again in a few seconds"))
    return problems


class _Seen(NamedTuple):
    """The progress of a task.

    `seq`: of its last entry. `reads`: its input topics. `behind`: input partitions with records that it has not
    processed.
    """

    seq: int
    reads: tuple[str, ...]
    behind: tuple[TopicPartition, ...]


def _read_progress(groups: Mapping[GroupId, int], reader: JournalReader) -> dict[TaskId, _Seen]:
    seqs: dict[TaskId, int] = {}
    places: dict[TaskId, dict[TopicPartition, int]] = {}
    tasks = tasks_of(groups)
    ends = reader.highest_ends([task.journal for task in tasks])
    for task in tasks:
        last = last_entry_before(task, reader, ends[task.journal])
        positions = last.entry.positions if last is not None else {}
        seqs[task] = last.entry.seq if last is not None else 0
        places[task] = TaskInputs(task.number, groups[task.group_id]).places(positions)
    behind = set()
    for group in groups:  # groups may read the same partitions from different positions
        read = {
            partition: at
            for task, found in places.items()
            if task.group == group.group
            for partition, at in found.items()
        }
        behind |= {(group.group, partition) for partition in holding_more(read, reader)}
    return {
        task: _Seen(
            seqs[task],
            tuple(dict.fromkeys(partition.topic for partition in found)),
            tuple(partition for partition in found if (task.group, partition) in behind),
        )
        for task, found in places.items()
    }


def _not_copied(copy: Copy, cluster: Cluster, reader: JournalReader) -> list[TopicPartition]:
    begun = cluster.describe([copy_task(copy.new.name).journal.topic])
    done = copied_up_to(copy, reader) if begun else {}
    return holding_more({partition: done.get(partition, 0) for partition in copy.partitions}, reader)
