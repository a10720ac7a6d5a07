"""Reads the state of a cluster and makes a plan from it: `plan_for_cluster`. Changes nothing.

The journals show which groups read a topic: the last entry of a task has a position for each input, and the genesis
entry names the inputs. So no worker and no program of the app is needed. A group of sinks has no journal. Its inputs
are in the topic of the app's workers, and in the consumer group that mirrors its positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.core.inputs import topic_of
from pipeline.core.names import (
    GroupId,
    TaskId,
    TopicPartition,
    journal_group,
    workers_app,
    workers_group,
    workers_topic,
)
from pipeline.core.notes import Owner, decode_note
from pipeline.core.topic_settings import SETTINGS, UNMANAGED
from pipeline.errors import FatalTaskError
from pipeline.ops.apps import tasks_of
from pipeline.ops.reading import last_committed
from pipeline.ops.topics.applying import checked_topic
from pipeline.ops.topics.declarations import TopicDeclaration
from pipeline.ops.topics.plan import ClusterFacts, Plan, Readers, make_plan, uncertain
from pipeline.ports import Cluster, JournalReader, TopicInfo
from pipeline.runtime.commit.journal_reader import last_entry

__all__ = ["plan_for_cluster", "readers_of"]

_READS_AT_ONCE = 8  # each read waits most of the time for a request or two


def plan_for_cluster(
    declared: Sequence[TopicDeclaration],
    cluster: Cluster,
    journals: Callable[[], JournalReader],
    allowed: frozenset[str] = frozenset(),
) -> Plan:
    """The plan for the present state of a cluster. `journals` opens a reader; it is called only if one is needed.

    Raises UnreachableError, ConfigError (not authorized), InputError (a topic in `allowed` is not declared).
    """
    names = cluster.topics()
    facts = ClusterFacts(
        names, cluster.describe([topic.name for topic in declared]) or _any_topic(names, cluster)
    )
    asked, unknown = uncertain(make_plan(declared, facts, allowed))
    if unknown:  # every declared topic overrides a setting: perhaps another topic has the cluster's default
        facts = ClusterFacts(names, {**cluster.describe(names), **facts.topics})
    if asked:
        facts = ClusterFacts(names, facts.topics, readers_of(asked, names, cluster, journals()))
    plan = make_plan(declared, facts, allowed)
    return plan if facts.topics else _asked(plan, cluster)


def _any_topic(names: Sequence[str], cluster: Cluster) -> Mapping[str, TopicInfo]:
    """One topic of the cluster, which shows the settings of topics there; empty if the cluster has no topic."""
    return next((found for name in names if (found := cluster.describe([name]))), {})


def _asked(plan: Plan, cluster: Cluster) -> Plan:
    """Ask the brokers whether they know the settings that Kafka does not have. For a cluster without topics.

    Other clusters show their settings in a topic. The request needs the permission to create topics, so it is made only
    for topics with such settings.
    """
    topics = [
        checked_topic(each, cluster) if each.topic.config.keys() - SETTINGS.keys() - UNMANAGED else each
        for each in plan.topics
    ]
    return replace(plan, topics=tuple(topics))


def readers_of(
    topics: Collection[str], names: Sequence[str], cluster: Cluster, reader: JournalReader
) -> dict[str, list[Readers]]:
    """The groups that have read each of the topics. `names`: all topics of the cluster, among them the journals."""
    found: dict[str, list[Readers]] = {topic: [] for topic in topics}
    alive: dict[str, bool] = {}
    groups = list(_groups(names))
    journals = [group.journal_topic for group in groups]
    described = cluster.describe(journals)
    if described.keys() != set(journals):  # one broker may know less than another
        described = cluster.describe_by_most(journals)
    counts = {g: described[g.journal_topic].partitions for g in groups if g.journal_topic in described}
    tasks = tasks_of(counts)
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        inputs = dict(zip(tasks, pool.map(lambda task: _inputs(task, reader), tasks), strict=True))
    for group, count in counts.items():
        read = [inputs[TaskId(*group, number)] for number in range(count)]
        unknown = next((each for each in read if isinstance(each, str)), "")
        reads = {topic for each in read if not isinstance(each, str) for topic in each}
        for topic in topics if unknown else reads & set(topics):
            if group.app not in alive:
                alive[group.app] = bool(cluster.member_ids(workers_group(group.app)))
            found[topic].append(Readers(group, alive[group.app], "" if topic in reads else unknown))
    for app in filter(None, map(workers_app, sorted(names))):
        for group in _sink_groups(app, reader):
            reads = {partition.topic for partition in cluster.committed(group.consumer_group)}
            for topic in reads & set(topics):
                found[topic].append(Readers(group, bool(cluster.member_ids(workers_group(app)))))
    return found


def _groups(names: Sequence[str]) -> Iterator[GroupId]:
    for name in sorted(names):
        app = name.split(".", 1)[0]
        group = journal_group(app, name)
        if group is not None and re.fullmatch(r"[A-Za-z0-9_-]+", app):
            yield GroupId(app, group)


def _inputs(task: TaskId, reader: JournalReader) -> frozenset[str] | str:
    """The inputs of a task, empty before the genesis entry; or, as text, why they are unknown."""
    try:
        last = last_entry(task.journal, reader)
        if last is not None:
            identity = last.entry.identity
            return frozenset(map(topic_of, last.entry.positions)) | frozenset(
                identity.inputs if identity is not None else ()
            )
        bounds = reader.bounds(task.journal)
        if last_committed(reader, task.journal, bounds.start, bounds.stable_end) is not None:
            return f"the journal {task.journal} holds records that are not journal entries"
    except FatalTaskError as error:
        return error.message
    return frozenset()


def _sink_groups(app: str, reader: JournalReader) -> list[GroupId]:
    """The sink groups that have had an owner, from the workers' notes: without the app's code or its database.

    The workers' topic of the app must exist. Raises UnreachableError.
    """
    topic = TopicPartition(workers_topic(app), 0)
    bounds = reader.bounds(topic)
    found: dict[GroupId, bool] = {}
    for _, data in reader.read(topic, bounds.start, bounds.stable_end):
        note = decode_note(app, data)
        if note is not None and isinstance(note[1], Owner):
            found[note[0].group_id] = bool(note[1].database)
    return [group for group, of_sinks in sorted(found.items()) if of_sinks]
