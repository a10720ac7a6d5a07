"""Finds the commit that contains an input record: `find_commit`; reads the records of a commit: `records_of`.

An entry has the input positions after its commit. So a record belongs to the entry whose position of the record's topic
is the first one after the record's offset. After a reset, a record may belong to several commits: the newest counts.
Reads only, as `pipeline.ops.history.past_states` describes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.inputs import TaskInputs, topic_of
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import InputError, StaleReadError
from pipeline.ops.history.past_states import journal_end, with_reader
from pipeline.ops.reading import committed_records
from pipeline.ports import Cluster, JournalReader, Record
from pipeline.runtime.commit.journal_reader import read_entries, without_delta
from pipeline.runtime.environment import Environment

__all__ = ["CommitRecords", "RecordCommit", "find_commit", "inputs_in", "records_of"]

READER = "pipeline.debug"  # the client requires a group; nothing is ever committed to it


@dataclass(frozen=True, slots=True)
class RecordCommit:
    """The commit of a record. `before`: the entry before it, without its table writes.

    `earlier`: the number of earlier commits with the same record, before resets.
    """

    entry: JournalEntry
    before: JournalEntry
    earlier: int

    @property
    def inputs(self) -> dict[str, range]:
        """The input offsets between the two entries, by input name; markers have offsets, too."""
        before = self.before.entry.positions
        return {
            name: range(before[name], after)
            for name, after in self.entry.entry.positions.items()
            if name in before and after > before[name]
        }


def find_commit(task: TaskId, name: str, offset: int, environment: Environment) -> RecordCommit:
    """The newest commit of a task that contains the record at `offset` of its input `name`.

    Raises:
        InputError: The record is not committed yet, was skipped by a start position, or was committed before the
            journal begins. The message says which, and names the oldest offset that is possible.
        FatalTaskError: The journal is damaged.
        UnreachableError: Kafka does not answer.
        RetriableError: The journal was truncated, or read from a stale leader, at each of several attempts.
    """
    inputs = inputs_in(task, environment.cluster)
    return with_reader(environment, lambda reader: _find(task, inputs.place(name), name, offset, reader))


def _find(task: TaskId, place: TopicPartition, name: str, offset: int, reader: JournalReader) -> RecordCommit:
    record = f"{place} offset {offset:,}"
    found: RecordCommit | None = None
    commits = 0
    first: JournalEntry | None = None
    previous: JournalEntry | None = None
    end = journal_end(task, reader)
    for entry in read_entries(task, reader, reader.bounds(task.journal).start, end, None):
        first = first or without_delta(entry)
        if previous is not None and _moves_past(previous, entry, name, offset):
            committed = entry.entry.kind is EntryKind.COMMIT
            if committed or not commits:
                found = RecordCommit(entry, previous, commits)
            commits += committed
        previous = without_delta(entry)
    if first is None or previous is None:
        raise InputError(
            f"the journal of task {task} has no entry",
            hint="a task has entries after the first start of a worker",
        )
    if found is None:
        raise _not_found(task, record, name, offset, first, previous)
    body = found.entry.entry
    if body.kind is not EntryKind.COMMIT:
        raise InputError(
            f"task {task} never processed record {record}: the {body.kind.name.lower()} entry {body.seq:,} moved its "
            f"position to {body.positions[name]:,}",
            hint="a new group starts where worker.start says, and a reset moves positions",
        )
    return found


def _moves_past(previous: JournalEntry, entry: JournalEntry, name: str, offset: int) -> bool:
    before = previous.entry.positions.get(name, 0)
    return before <= offset < entry.entry.positions.get(name, 0)


def _not_found(
    task: TaskId, record: str, name: str, offset: int, first: JournalEntry, last: JournalEntry
) -> InputError:
    position = last.entry.positions.get(name)
    if position is None:
        return InputError(
            f"task {task} has no position in topic {topic_of(name)}",
            hint=f"its inputs: {', '.join(dict.fromkeys(map(topic_of, last.entry.positions)))}",
        )
    if offset >= position:
        return InputError(
            f"record {record} is not committed: the position of task {task} is {position:,}",
            hint="pipeline status shows whether the task runs, and whether a record stops it",
        )
    if first.entry.kind is EntryKind.GENESIS:
        start = first.entry.positions.get(name, 0)
        return InputError(
            f"task {task} never processed record {record}: the group started at offset {start:,}",
            hint="a new group starts where worker.start says",
        )
    return InputError(
        f"the commit of record {record} is no longer in the journal, which begins at entry {first.entry.seq:,}",
        hint=f"the oldest possible offset of this partition is {first.entry.positions.get(name, position):,}",
    )


@dataclass(frozen=True, slots=True)
class CommitRecords:
    """The records of a commit: those before the record in question, the record, and those after it.

    `exact`: whether their order is known. The journal has positions by topic, so the order of records of different
    topics in one commit is unknown; it is assumed to be that of their timestamps.
    """

    before: Sequence[Record]
    record: Record
    after: Sequence[Record]
    exact: bool


def records_of(
    task: TaskId, commit: RecordCommit, name: str, offset: int, environment: Environment
) -> CommitRecords:
    """Read the records of a commit from the partition of the record in question.

    Those of other partitions do not matter: no handler sees their rows.

    Raises:
        InputError: The topics no longer have all of them, or there is no committed record at `offset`.
        UnreachableError: Kafka does not answer.
    """
    inputs = inputs_in(task, environment.cluster)
    of_record = inputs.place(name)
    read = {inputs.place(each): offsets for each, offsets in commit.inputs.items()}
    by_topic = {
        each.topic: _read(each, offsets, environment)
        for each, offsets in read.items()
        if each.partition == of_record.partition
    }
    by_topic = {topic: records for topic, records in by_topic.items() if records}
    ordered = list(_merged(by_topic))
    wanted = of_record.topic, offset
    place = next((n for n, record in enumerate(ordered) if (record.topic(), record.offset()) == wanted), None)
    if place is None:
        raise InputError(
            f"there is no committed record at {of_record} offset {offset:,}",
            hint="it may be the marker of a transaction, or compaction has deleted it",
        )
    return CommitRecords(ordered[:place], ordered[place], ordered[place + 1 :], len(by_topic) == 1)


def inputs_in(task: TaskId, cluster: Cluster) -> TaskInputs:
    """The names of a task's inputs. Raises UnreachableError."""
    topic = task.journal.topic
    journal = cluster.describe([topic]).get(topic)
    return TaskInputs(task.number, journal.partitions if journal is not None else 0)


def _read(place: TopicPartition, offsets: range, environment: Environment) -> list[Record]:
    info = environment.cluster.describe([place.topic]).get(place.topic)
    if info is None:
        raise InputError(f"topic {place.topic}, an input of the commit, does not exist any more")

    def read(reader: JournalReader) -> list[Record]:
        bounds = reader.bounds(place)
        if bounds.start > offsets.start:
            raise InputError(
                f"the commit begins at {place} offset {offsets.start:,}, and Kafka has deleted the records before "
                f"{bounds.start:,}",
                hint="retention.ms and retention.bytes of the topic decide how long its records can be debugged",
            )
        if bounds.stable_end < offsets.stop:
            raise StaleReadError(
                f"{place} was processed up to offset {offsets.stop:,}, and the broker sees it end at "
                f"{bounds.stable_end:,}",
                hint="a broker may have lost its controllers, or the topic was created again",
            )
        with closing(environment.sources.open(READER)) as source:
            within = {place.partition: offsets}
            return list(committed_records(info, reader, source, environment.clock, within))

    return with_reader(environment, read)


def _merged(by_topic: Mapping[str, Sequence[Record]]) -> Iterator[Record]:
    """All records: those of a topic in their order, those of different topics by their timestamps."""
    waiting = {name: deque(records) for name, records in by_topic.items()}
    while waiting:
        name = min(waiting, key=lambda each: (waiting[each][0].timestamp()[1], each))
        yield waiting[name].popleft()
        if not waiting[name]:
            del waiting[name]
