"""The two topics of a group with dead letters: the dead letters, and their replays.

They are created when a worker starts, before genesis. A crash between the two leaves empty topics, which the next start
finds. Both have unlimited retention: a dead letter has its record's timestamp, so retention would delete an old one
immediately, and a replay that is deleted before it is handled would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.names import GroupId, TopicPartition
from pipeline.ports import Cluster, TopicInfo, TopicSpec
from pipeline.runtime.created_topics import create_topics
from pipeline.runtime.environment import Environment

__all__ = ["create_dead_letter_topics", "dead_letter_topics", "holds_no_letters", "wants_letters"]

# A dead letter contains its whole record and headers about the error; a replay also contains the record's place.
DEAD_LETTER_HEADER_BYTES = 64 * 1024
_ANY_TIME = str(2**63 - 1)
_REPLAYS_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}
# A record with any timestamp, old or in the future, must be accepted with that timestamp.
_LETTERS_CONFIG: Mapping[str, str] = {
    **_REPLAYS_CONFIG,
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": _ANY_TIME,
    "message.timestamp.after.max.ms": _ANY_TIME,
}


def wants_letters(group: DeclaredGroup) -> bool:
    """Whether a handler of the group, or the function of a window's ends, has the policy `dead_letter`."""
    return any(binding.on_error == "dead_letter" for binding in group.functions)


def dead_letter_topics(groups: Sequence[DeclaredGroup], cluster: Cluster) -> dict[str, TopicInfo]:
    """The existing topics of these groups. A group that never had dead letters needs no permission for them.

    Kafka lists only the topics that the client may describe. So the topics of a group with dead letters are described,
    whether they are listed or not: then a missing permission is an error, and does not look like a missing topic.
    """
    listed = set(cluster.topics())
    names = {
        name
        for group in groups
        for name in (group.id.dead_letter_topic, group.id.replays_topic)
        if wants_letters(group) or name in listed
    }
    return cluster.describe(sorted(names)) if names else {}


def holds_no_letters(group: GroupId, environment: Environment) -> bool:
    """Whether the dead-letter topic never had a record. Raises UnreachableError."""
    topic = environment.cluster.describe([group.dead_letter_topic]).get(group.dead_letter_topic)
    if topic is None:
        return True
    reader = environment.journals()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        return not any(reader.stable_ends(places).values())
    finally:
        reader.close()


def create_dead_letter_topics(
    group: GroupId, partitions: int, largest_input: int, replication: int, environment: Environment
) -> None:
    """Create the missing topics. `partitions`: the number of tasks. `largest_input`: maximum bytes of an input record.

    Raises FatalTaskError if they do not appear in the cluster's metadata.
    """
    largest = largest_input + DEAD_LETTER_HEADER_BYTES
    letters = {**_LETTERS_CONFIG, "max.message.bytes": str(largest)}
    replays = {**_REPLAYS_CONFIG, "max.message.bytes": str(largest + DEAD_LETTER_HEADER_BYTES)}
    create_topics(
        [
            TopicSpec(group.dead_letter_topic, partitions, replication, letters),
            TopicSpec(group.replays_topic, partitions, replication, replays),
        ],
        environment,
    )
