"""Deletes dead letters that are no longer needed: `plan_purge`, `purge`.

Kafka deletes records only from the start of a partition. So a purge deletes, in each partition, the letters before the
first one that is needed. A letter is needed if it is the newest letter of a record

- that was neither replayed nor discarded (an open record), or
- whose replay waits: no commit of its task has moved past the replay yet. Until then, the letter is the only copy that
  `pipeline deadletters show` can show.

1. Fence the replays and discards of the group, write a barrier in the marks and the letters
   (`transactions/proof.py`), and read the marks.
2. Find the first needed letter of each partition.
3. Delete the records before it, and none after the barrier.
4. Remove the marks of letters that no longer exist.

A crash after 3 leaves marks that are never read; the next purge removes them. Only letters whose marks were read as
committed are deleted, so a crash, or another command at the same time, cannot delete an open letter. A task's position
in the replays topic never decreases except in a reset. So a position that is out of date keeps too many letters. The
commit that moves it past a replay has the results of the replay, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pipeline.core.dead_letters import decode_replay
from pipeline.core.inputs import TaskInputs
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.ops.dead_letters.letters import Choice, LetterId, dead_letter_topic, places_of
from pipeline.ops.dead_letters.marks import (
    ReplayMark,
    ensure_marks_topic,
    forgotten_mark,
    marks_place,
    read_marks,
)
from pipeline.ops.dead_letters.records import State, failed_records
from pipeline.ops.reading import committed_records, seeing
from pipeline.ops.transactions import ReceiptTransactions
from pipeline.ports import TopicInfo
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.runtime.environment import Environment

__all__ = ["Purge", "plan_purge", "purge", "waiting_replays"]

BATCH_MARKS = 5_000

_READER = "pipeline.deadletters"  # the client requires a consumer group; no offset is committed to it


@dataclass(frozen=True, slots=True)
class Purge:
    """The result of a purge, or its plan.

    `before`: the first offset that stays, by partition. `letters`: how many letters are deleted. `open`: the number of
    open records. `waiting`: the number of records whose replay waits. `behind`: how many letters are not needed, but
    stay because a needed one precedes them.
    """

    before: dict[int, int]
    letters: int
    open: int
    waiting: int
    behind: int


def plan_purge(group: GroupId, environment: Environment) -> Purge:
    """The letters that a purge would delete. Raises InputError (the group has no dead letters), UnreachableError."""
    return _plan(group, dead_letter_topic(group, environment.cluster), environment, {})


def purge(group: GroupId, environment: Environment, retry_backoff_ms: int) -> Purge:
    """Delete the letters that are not needed, and return which ones.

    Raises InputError (the group has no dead letters), FencedError, UnreachableError, CorruptStateError.
    """
    topic = dead_letter_topic(group, environment.cluster)
    transactions = ReceiptTransactions(
        group.replay_transactional_id,
        [marks_place(group), *places_of(topic)],
        environment.producers,
        environment.clock,
        retry_backoff_ms,
    )
    try:
        ensure_marks_topic(group, environment.cluster)
        transactions.fence()  # 1
        ends = transactions.known_ends
        environment = replace(
            environment, journals=seeing(environment.journals, lambda: ends, environment.clock)
        )
        plan = _plan(group, topic, environment, ends)  # 2
        for partition, before in plan.before.items():  # 3
            environment.cluster.truncate(TopicPartition(topic.name, partition), before)
        forgotten = _forgotten(group, topic, environment)
        for start in range(0, len(forgotten), BATCH_MARKS):  # 4
            _forget(forgotten[start : start + BATCH_MARKS], transactions, environment)
    finally:
        transactions.close()
    return plan


def _plan(
    group: GroupId, topic: TopicInfo, environment: Environment, ends: Mapping[TopicPartition, int]
) -> Purge:
    """`ends`: the ends of marks and letters after the barrier. Letters that were written later are not deleted."""
    marks = read_marks(group, topic.topic_id, environment, ends.get(marks_place(group), 0))
    with closing(environment.journals()) as reader:
        found = reader.stable_ends(places_of(topic))
    before = {place.partition: min(end, ends.get(place, end)) for place, end in found.items()}
    records = failed_records(topic, group, Choice(), environment)
    replays = waiting_replays(group, environment)
    still_open = [record for record in records if record.state(marks) is State.OPEN]
    waiting = [
        record
        for record in records
        if record.state(marks) is not State.OPEN and not replays.isdisjoint(record.ids)
    ]
    for record in (*still_open, *waiting):
        partition, offset = record.newest
        before[partition] = min(before[partition], offset)
    ids = [letter for record in records for letter in record.ids]
    deleted = sum(offset < before[partition] for partition, offset in ids)
    needed = len(still_open) + len(waiting)
    return Purge(before, deleted, len(still_open), len(waiting), len(ids) - deleted - needed)


def _forgotten(group: GroupId, topic: TopicInfo, environment: Environment) -> Sequence[ReplayMark]:
    """Marks of letters that no longer exist."""
    with closing(environment.journals()) as reader:
        starts = {
            number: reader.bounds(TopicPartition(topic.name, number)).start
            for number in range(topic.partitions)
        }
    marks = read_marks(group, topic.topic_id, environment, 1)
    return [mark for mark in marks.values() if mark.offset < starts.get(mark.partition, 0)]


def _forget(marks: Sequence[ReplayMark], transactions: ReceiptTransactions, environment: Environment) -> None:
    """Remove marks. The outcome of the commit does not matter: the next purge removes the remaining ones."""
    now_ms = environment.clock.wall_ms()
    transactions.write(
        f"{len(marks)} marks to remove",
        receipt=lambda: None,
        send=lambda engine, _: engine.send([forgotten_mark(mark, now_ms) for mark in marks]),
        outcome=lambda _: CommitOutcome.COMMITTED,
    )


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
        tasks = journal.partitions if journal is not None else 0
        last = {number: last_entry(TaskId(*group, number).journal, reader) for number in range(tasks)}
        for number in range(topic.partitions):
            place = TopicPartition(topic.name, number)
            bounds = reader.bounds(place)
            entry = last[number % tasks] if tasks else None
            name = TaskInputs(number % tasks, tasks).name(place) if tasks else ""
            position = entry.entry.positions.get(name, 0) if entry is not None else 0
            if position < bounds.stable_end:
                within[number] = range(position, bounds.stable_end)
        replays = (
            decode_replay(record.value())
            for record in committed_records(topic, reader, source, environment.clock, within)
        )
        return {(each.letter_partition, each.letter_offset) for each in replays if each is not None}
