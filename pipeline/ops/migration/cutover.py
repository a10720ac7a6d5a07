"""Whether a migration is over: what is still missing before the old app may be forgotten. Reads Kafka alone."""

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
    """What is missing, with all that speaks against a copy; empty when nothing is and does.

    The new app has processed everything when two looks, one after the other, find every task at the end of its
    inputs and under the same entry: whatever a group had written by the first look was there to be read in the
    second, and no group has written since.
    """
    problems = list(surveyed.problems)
    if members := cluster.member_ids(workers_group(migration.old)):
        hint = "stop them; one that was killed is missed after 10 s"
        problems.append(Problem(f"{len(members)} of the workers of {migration.old} are alive", hint))
    for copy in surveyed.copies:
        if left := _not_copied(copy, cluster, reader):
            text = f"{copy.old.name} holds records that are not copied, in {listed(left)}"
            problems.append(Problem(text, "stop its producers, then: pipeline migrate run"))
    try:
        groups = groups_of(migration.new, cluster)
    except InputError:
        hint = "start its workers: pipeline worker MODULE:APP"
        return [*problems, Problem(f"app {migration.new} has not begun", hint)]
    first, second = _look(groups, reader), _look(groups, reader)
    read = {topic for seen in second.values() for topic in seen.reads}
    if unread := sorted(set(migration.topics.values()) - read):
        text = f"app {migration.new} does not read {', '.join(unread)}"
        problems.append(Problem(text, "let its handlers read the new topics"))
    if behind := sorted({place for seen in second.values() for place in seen.behind}):
        text = f"app {migration.new} has not processed all of {listed(behind)}"
        problems.append(Problem(text, f"wait for it: pipeline status {migration.new}"))
    elif idle := [str(task) for task, seen in second.items() if not seen.reads]:
        text = f"no worker has started task {', '.join(idle[:3])} of app {migration.new}"
        problems.append(Problem(text, "start its workers: pipeline worker MODULE:APP"))
    elif first != second:
        problems.append(Problem(f"app {migration.new} is still at work", "look again in a moment"))
    return problems


class _Seen(NamedTuple):
    """A task: number of its last entry, input topics, and input partitions that it has not come to the end of."""

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
            place: at
            for task, found in places.items()
            if task.group == group.group
            for place, at in found.items()
        }
        behind |= {(group.group, place) for place in holding_more(read, reader)}
    return {
        task: _Seen(
            seqs[task],
            tuple(place.topic for place in found),
            tuple(place for place in found if (task.group, place) in behind),
        )
        for task, found in places.items()
    }


def _not_copied(copy: Copy, cluster: Cluster, reader: JournalReader) -> list[TopicPartition]:
    begun = cluster.describe([copy_task(copy.new.name).journal.topic])
    done = copied_up_to(copy, reader) if begun else {}
    return holding_more({place: done.get(place, 0) for place in copy.partitions}, reader)
