"""The replays that wait: those after the position of their task in the replays topic, by the journal's last entry.

A task's commit moves its position past a replay in the transaction that has the results of the replay.
"""

from __future__ import annotations

from contextlib import closing

from pipeline.core.dead_letters import decode_replay
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.ops.dead_letters.letters import LetterId
from pipeline.ops.reading import committed_records
from pipeline.ports import JournalReader
from pipeline.runtime.commit.journal_reader import last_entries
from pipeline.runtime.environment import Environment

__all__ = ["waiting_replays"]

_READER = "pipeline.deadletters"  # the client requires a consumer group; no offset is committed to it


def waiting_replays(group: GroupId, environment: Environment) -> set[LetterId]:
    """The ids of the dead letters whose replay no task has handled yet.

    Only the part of the replays topic is read that the tasks have not read. Raises UnreachableError.
    """
    found = environment.cluster.describe([group.replays_topic, group.journal_topic])
    topic, journal = found.get(group.replays_topic), found.get(group.journal_topic)
    if topic is None:
        return set()
    with (
        closing(environment.journals()) as reader,
        closing(environment.sources.open(_READER)) as source,
    ):
        within = {}
        for number in range(topic.partitions):
            bounds = reader.bounds(TopicPartition(topic.name, number))
            has_entries = journal is not None and number < journal.partitions
            position = _position(TaskId(*group, number), topic.name, reader) if has_entries else 0
            if position < bounds.stable_end:
                within[number] = range(position, bounds.stable_end)
        replays = (
            decode_replay(record.value())
            for record in committed_records(topic, reader, source, environment.clock, within)
        )
        return {(each.letter_partition, each.letter_offset) for each in replays if each is not None}


def _position(task: TaskId, topic: str, reader: JournalReader) -> int:
    last = last_entries(task.journal, reader, reader.bounds(task.journal), 1)
    return last[-1].entry.positions.get(topic, 0) if last else 0
