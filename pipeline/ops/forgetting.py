"""Deletes what Kafka stores for a group, so that its next start is a first start: `forget_group`.

The journal is deleted first. Without it, workers refuse to start until the other data that shows that the group existed
is deleted, too. After a crash, the same call deletes the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.core.names import GroupId, workers_group, workers_topic
from pipeline.errors import ConfigError
from pipeline.ports import Cluster

__all__ = ["forget_group", "traces_of"]


def traces_of(group: GroupId, cluster: Cluster) -> list[str]:
    """A description of each thing that Kafka stores for the group.

    Raises ConfigError while workers of the app run, and UnreachableError.
    """
    members = cluster.member_ids(workers_group(group.app))
    if members:
        raise ConfigError(
            f"app {group.app} has {len(members)} worker{'s' * (len(members) != 1)} that still run, or were killed "
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
