"""What Kafka stores for an app: its groups, its tasks and their positions, and the deletion of a group.

`forget_group` deletes the data of a group, so that its next start is a first start. The journal is deleted first.
Without it, workers refuse to start until the other data that shows that the group existed is deleted, too. After a
crash, the same call deletes the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.core.entry_body import entry_partitions
from pipeline.core.inputs import TaskInputs, topic_of
from pipeline.core.journal_format import JournalEntry
from pipeline.core.names import (
    GroupId,
    TaskId,
    TopicPartition,
    journal_group,
    workers_group,
    workers_topic,
)
from pipeline.core.suggestions import counted, no_app
from pipeline.errors import ConfigError
from pipeline.ops.reading import last_committed
from pipeline.ports import Cluster, JournalBounds, JournalReader
from pipeline.runtime.commit.journal_reader import last_entry

__all__ = [
    "forget_group",
    "groups_of",
    "holding_more",
    "inputs_of",
    "last_entry_before",
    "listed",
    "tasks_of",
    "traces_of",
]


def groups_of(app: str, cluster: Cluster) -> dict[GroupId, int]:
    """The groups of an app, each with its number of tasks.

    Raises InputError if the app does not exist, and UnreachableError.
    """
    topics = cluster.topics()
    named = {GroupId(app, group) for name in topics if (group := journal_group(app, name))}
    found = cluster.describe(sorted(group.journal_topic for group in named))
    if found.keys() != {group.journal_topic for group in named}:  # one broker may know less than another
        found = cluster.describe_by_most(sorted(group.journal_topic for group in named))
    if not found:
        raise no_app(app, topics)
    return {g: found[g.journal_topic].partitions for g in sorted(named) if g.journal_topic in found}


def tasks_of(groups: Mapping[GroupId, int]) -> list[TaskId]:
    """All tasks of the groups."""
    return [TaskId(*group, number) for group, count in groups.items() for number in range(count)]


def last_entry_before(task: TaskId, reader: JournalReader, end: int) -> JournalEntry | None:
    """The last entry of a task before offset `end`; None if the journal has no entry yet.

    Raises UnreachableError, StaleReadError (the reader cannot read up to `end`), FatalTaskError.
    """
    return last_entry(task.journal, reader, JournalBounds(reader.bounds(task.journal).start, end, end))


def inputs_of(group: GroupId, tasks: int, reader: JournalReader) -> dict[str, int]:
    """The inputs of a group with so many tasks, each with the number of partitions that it had at the first start.

    Empty before the first acquire of all tasks.
    """
    topics: set[str] = set()
    partitions: set[int] = set()
    for task in tasks_of({group: tasks}):
        last = last_entry(task.journal, reader)
        if last is not None:
            topics.update(map(topic_of, last.entry.positions))
            partitions.update(entry_partitions(last.entry, TaskInputs(task.number, tasks)))
    return dict.fromkeys(sorted(topics), max(partitions, default=-1) + 1)


def holding_more(positions: Mapping[TopicPartition, int], reader: JournalReader) -> list[TopicPartition]:
    """The partitions with a committed record at or after their position, or with an open transaction.

    Asks every broker for the ends: a broker that is no longer the leader may report an old one.
    """
    ends = reader.highest_ends(list(positions))
    return [
        partition
        for partition, at in positions.items()
        if _holds_more(partition, at, ends[partition], reader)
    ]


def _holds_more(partition: TopicPartition, position: int, end: int, reader: JournalReader) -> bool:
    bounds = reader.bounds(partition)
    return bounds.end > end or last_committed(reader, partition, max(position, bounds.start), end) is not None


def listed(places: Sequence[TopicPartition]) -> str:
    """The first three partitions, and the number of the others."""
    return ", ".join(map(str, places[:3])) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def traces_of(group: GroupId, cluster: Cluster) -> list[str]:
    """A description of each thing that Kafka stores for the group.

    Raises ConfigError while workers of the app run, and UnreachableError.
    """
    members = cluster.member_ids(workers_group(group.app))
    if members:
        raise ConfigError(
            f"app {group.app} has {counted(len(members), 'worker')} that still run, or were killed "
            "within the last 10 s",
            hint=f"stop them first; `pipeline status {group.app}` shows them",
        )
    topics = cluster.describe([group.journal_topic, workers_topic(group.app)])
    found = [f"topic {name}" for name in topics]
    if cluster.committed(group.consumer_group):
        found.append(f"consumer group {group.consumer_group}")
    return found


def forget_group(group: GroupId, cluster: Cluster, report: Callable[[str], None]) -> None:
    """Delete the journal, the topic of the app's workers, and the consumer group with the mirrored positions.

    `report` is called with a description of each deletion. Raises UnreachableError.
    """
    for topic in (group.journal_topic, workers_topic(group.app)):
        if cluster.describe([topic]):
            cluster.delete([topic])
            report(f"topic {topic}: deleted")
    known = bool(cluster.committed(group.consumer_group))
    # Kafka hides positions in topics that this user may not describe, so the group may exist although none is known.
    cluster.forget(group.consumer_group)
    if known:
        report(f"consumer group {group.consumer_group}: deleted")
