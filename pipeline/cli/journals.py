"""From the names that are typed to the tasks that Kafka holds: for commands that need no app's code."""

from __future__ import annotations

from pipeline.core.names import GroupId, TaskId, check_name
from pipeline.errors import InputError
from pipeline.kafka.cluster import KafkaCluster

__all__ = ["app_named", "journaled_tasks"]


def app_named(name: str) -> str:
    """Return an app's name. Raises InputError for MODULE:APP, ConfigError for what cannot be a name."""
    if ":" in name:
        raise InputError(f"{name!r} is no app's name", hint="give the app's name, not MODULE:APP")
    return check_name("app", name)


def journaled_tasks(cluster: KafkaCluster, group_id: GroupId, partition: int | None) -> list[TaskId]:
    """The tasks of a group, or the one of `partition`, by its journal. Raises InputError, UnreachableError."""
    topic = cluster.describe([group_id.journal_topic]).get(group_id.journal_topic)
    if topic is None and cluster.committed(group_id.consumer_group):
        raise InputError(
            f"group {group_id.app}/{group_id.group} has no journal and no checkpoints",
            hint="a group of sinks has its positions in its database: SELECT * FROM pipeline_positions; "
            "pipeline status shows its tasks. For a group of handlers: runbooks/journal-lost.md",
        )
    if topic is None:
        raise InputError(
            f"there is no journal {group_id.journal_topic} in this Kafka",
            hint="give the app's name, not MODULE:APP, and its group with --group",
        )
    if partition is not None and not 0 <= partition < topic.partitions:
        raise InputError(f"{group_id.journal_topic} has partitions 0 to {topic.partitions - 1}")
    numbers = range(topic.partitions) if partition is None else [partition]
    return [TaskId(group_id.app, group_id.group, number) for number in numbers]
