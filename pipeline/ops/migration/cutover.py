"""Checks whether a migration is complete, so that the old app can be deleted. Reads Kafka only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.core.names import GroupId, TaskId, TopicPartition, workers_group
from pipeline.core.problem import Problem
from pipeline.errors import InputError
from pipeline.ops.apps import groups_of, holding_more, last_entry, listed, tasks_of
from pipeline.ops.migration.copying import Copy, copied_up_to, copy_task
from pipeline.ops.migration.migration import Migration, Survey
from pipeline.ports import Cluster, JournalReader

__all__ = ["unfinished"]


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
        problems.append(Problem(f"{len(members)} of the workers of {migration.old} are alive", hint))
    for copy in surveyed.copies:
        if left := _not_copied(copy, cluster, reader):
            text = f"{copy.old.name} holds records that are not copied, in {listed(left)}"
            problems.append(Problem(text, "stop its producers, then: pipeline migrate run"))
    try:
        groups = groups_of(migration.new, cluster)
    except InputError:
        hint = "start its workers: pipeline worker MODULE:APP"
        return [*problems, Problem(f"app {migration.new} has not started", hint)]
    first, second = _look(groups, reader), _look(groups, reader)
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


def _look(groups: Mapping[GroupId, int], reader: JournalReader) -> dict[TaskId, _Seen]:
    seqs: dict[TaskId, int] = {}
    places: dict[TaskId, dict[TopicPartition, int]] = {}
    tasks = tasks_of(groups)
    ends = reader.highest_ends([task.journal for task in tasks])
    for task in tasks:
        last = last_entry(task, reader, ends[task.journal])
        positions = last.entry.positions if last is not None else {}
        seqs[task] = last.entry.seq if last is not None else 0
        places[task] = {TopicPartition(topic, task.partition): at for topic, at in positions.items()}
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
            tuple(partition.topic for partition in found),
            tuple(partition for partition in found if (task.group, partition) in behind),
        )
        for task, found in places.items()
    }


def _not_copied(copy: Copy, cluster: Cluster, reader: JournalReader) -> list[TopicPartition]:
    begun = cluster.describe([copy_task(copy.new.name).journal.topic])
    done = copied_up_to(copy, reader) if begun else {}
    return holding_more({partition: done.get(partition, 0) for partition in copy.partitions}, reader)
