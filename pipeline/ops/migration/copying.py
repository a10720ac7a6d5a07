"""Copies a topic into one with another number of partitions: each committed record once, in order per key.

A copy is a task with a journal of one partition and without a table. Its positions are offsets in the partitions of the
old topic, one for each partition and pass. The protocol:

    1 Write the genesis entry, in the first run only. The new topic must be empty.
    2 Fence: of two copies into one topic, only the newer one continues.
    3 Write a barrier and read the journal up to it: the positions, and whether both topics still have the same ids.
    4 Write the acquire entry.
    5 Look up the end offsets of each pass: first those of pass AFTER, then those of pass BEFORE.
    6 Pass BEFORE: copy the records that were written before the number of partitions changed, up to its end.
    7 Pass AFTER: copy the records that were written after the change, up to its end.

Keys, values, headers and timestamps are unchanged. One transaction contains the copied records and the positions after
them, so a crash leaves both or neither, and the next run continues from there.

The order of steps 5 to 7 keeps the order per key while producers write. A producer writes a key to the old partition
first and to the new partition later. Pass BEFORE runs first, and its end is looked up last, so it copies every record
that precedes a record of pass AFTER.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from msgspec import structs

from pipeline.config import WorkerSettings
from pipeline.core.headers import UnreadableHeadersError, headers_of
from pipeline.core.journal_format import EntryKind, Identity, InputFacts
from pipeline.core.names import COPY_GROUP, GroupId, TaskId, TopicPartition, copy_name
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery import check_identity
from pipeline.core.suggestions import counted
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    FencedError,
    InputError,
    OutOfRangeError,
    StaleReadError,
    SupersededError,
)
from pipeline.ops.migration.copy_order import Era, era_of, merged
from pipeline.ops.reading import last_committed
from pipeline.ports import Attempts, JournalReader, Output, Record, TopicInfo, growing, kept_timestamp
from pipeline.runtime.commit.admin_entry import settled_last
from pipeline.runtime.commit.commit_protocol import Publisher
from pipeline.runtime.commit.journal_reader import first_entry, last_entry
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import PARTITIONER
from pipeline.runtime.restore.genesis import ensure_genesis

__all__ = ["Copied", "Copy", "copied_up_to", "copy_task", "run_copy"]

BATCH_RECORDS = 5_000
BATCH_BYTES = 8 * 1024 * 1024
_MAX_RUNS = 7
_RUN_PAUSES_S = (0.1, 2.0)
_SCANNED = 100_000  # commit the positions after this many records, even if most belong to the other pass


@dataclass(frozen=True, slots=True)
class Copy:
    """The topics of a copy. `before`: the number of partitions that `old` had when the app started to read it."""

    old: TopicInfo
    new: TopicInfo
    before: int

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.old.name, number) for number in range(self.old.partitions)]

    @property
    def passes(self) -> tuple[Era, ...]:
        return (Era.BEFORE,) if self.before == self.old.partitions else (Era.BEFORE, Era.AFTER)


@dataclass(frozen=True, slots=True)
class Copied:
    """`records`: copied by this run. `before`: copied by earlier runs, from the journal."""

    records: int
    before: int


def copy_task(new_topic: str) -> TaskId:
    """The task whose journal holds the positions of the copy into `new_topic`."""
    return TaskId(copy_name(new_topic), COPY_GROUP, 0)


def copied_up_to(copy: Copy, reader: JournalReader) -> Mapping[TopicPartition, int]:
    """The offset of each partition of the old topic below which all records are copied; empty before the first run."""
    task = copy_task(copy.new.name)
    last = last_entry(task.journal, reader)
    positions = last.entry.positions if last is not None else {}
    if not positions:
        return {}
    return {p: min(positions.get(_name(p, era), 0) for era in copy.passes) for p in copy.partitions}


def run_copy(
    copy: Copy,
    owner: str,
    environment: Environment,
    settings: WorkerSettings,
    progress: Callable[[int], None],
) -> Copied:
    """Copy up to the end that the old topic has now.

    Args:
        copy: The topics.
        owner: The name of this process, for the journal.
        environment: The clients, clock and random numbers.
        settings: The settings of a worker.
        progress: Called after each commit with the number of records that this run has copied.

    Returns:
        The number of copied records.

    Raises:
        ConfigError: The topics cannot be copied, or are not those of the first run.
        InputError: The order of a record is unknown, or its headers cannot be copied.
        FencedError: Another copy into the topic was started.
        UnreachableError: Kafka is unreachable.
        FatalTaskError: The journal is damaged, or records were deleted before they were copied.
    """
    runs = Attempts(environment.clock, _MAX_RUNS, growing(*_RUN_PAUSES_S))
    try:
        while True:
            with closing(_Run(copy, owner, environment, settings, progress)) as run:
                try:
                    return run.run()
                except (StaleReadError, OutOfRangeError):
                    # A broker that is no longer the leader answered. New clients may connect to another one.
                    if not runs.pause():
                        raise
    except (FencedError, SupersededError) as error:
        raise FencedError(
            f"this copy into topic {copy.new.name} was stopped by a newer one: {error.message}",
            hint="no record was lost or copied twice; if no other copy is running, run the same command again",
        ) from error


class _Run:
    """One run of a copy."""

    def __init__(
        self,
        copy: Copy,
        owner: str,
        environment: Environment,
        settings: WorkerSettings,
        progress: Callable[[int], None],
    ) -> None:
        self._copy = copy
        self._environment = environment
        self._settings = settings
        self._progress = progress
        self._task = copy_task(copy.new.name)
        self._where = f"the copy of {copy.old.name} into {copy.new.name}"
        self._publisher = Publisher(self._task, owner, environment, settings)
        self._reader = environment.journals()
        self._positions: dict[str, int] = {}
        self._before = 0
        self._records = 0
        self._identity = Identity(
            cluster_id=environment.cluster.cluster_id(),
            partitioner=PARTITIONER,
            inputs={t.name: InputFacts(t.topic_id, t.partitions) for t in (copy.old, copy.new)},
            tables={},
            topology=f"copy of {copy.old.name}, placed by {copy.before} partitions",
        )

    def run(self) -> Copied:
        self._begin()  # 1
        self._take_over()  # 2, 3, 4
        ends = {era: self._ends() for era in reversed(self._copy.passes)}  # 5
        for era in self._copy.passes:  # 6, 7
            self._pass(era, ends[era])
        self._check_topics()
        return Copied(self._records, self._before)

    def close(self) -> None:
        self._publisher.close()
        self._reader.close()

    def _begin(self) -> None:
        group = GroupId(self._task.app, self._task.group)
        new = self._copy.new
        if not self._environment.cluster.describe([group.journal_topic]):
            held = [
                partition
                for partition in (TopicPartition(new.name, number) for number in range(new.partitions))
                if self._reader.bounds(partition).end
            ]
            if held and self._environment.cluster.describe_by_most([group.journal_topic]):
                held = []  # an earlier run wrote the records; the broker that answered first had old metadata
            if held:
                raise ConfigError(
                    f"{held[0]} already holds records, and none of them was copied by this command",
                    hint="copy into a new topic without records",
                )
        ensure_genesis(
            group,
            1,
            self._identity,
            self._settings.replication_factor,
            environment=self._environment,
            retry_backoff_ms=self._settings.retry_backoff_ms,
        )

    def _take_over(self) -> None:
        self._publisher.fence()  # 2
        self._publisher.barrier()
        head, end = settled_last(self._task, self._publisher, self._environment, self._settings)  # 3
        before = self._began_with()
        if before.topology != self._identity.topology:
            raise ConfigError(
                f"topic {self._copy.new.name} was started as a {before.topology}; "
                f"this run is a {self._identity.topology}",
                hint="copy into a new topic without records",
            )
        check_identity(self._where, before, self._identity)
        self._before = int(head.entry.extra.get(_COUNT, b"0"))
        self._publisher.take(
            _NoState(),
            head,
            AppliedPosition(
                seq=head.entry.seq,
                offset=head.offset,
                next_offset=head.next_offset,
                chain=head.chain,
                positions=head.entry.positions,
                identity=self._identity,
                journal_bytes=head.journal_bytes,
            ),
            end,
        )
        for partition in self._copy.partitions:
            start = self._reader.bounds(partition).start
            for name in (_name(partition, era) for era in self._copy.passes):
                self._positions[name] = at = head.entry.positions.get(name, start)
                if at < start:
                    raise FatalTaskError(
                        f"{partition} no longer holds offsets {at} to {start - 1}, which have not been copied",
                        hint="copy the remaining records into a new topic, with --incomplete",
                    )
        self._commit(EntryKind.ACQUIRE, [])  # 4

    def _began_with(self) -> Identity:
        """The identity in the genesis entry. The journal of a copy is never truncated, so it still has that entry."""
        with closing(self._environment.journals()) as reader:
            bounds = reader.bounds(self._task.journal)
            if bounds.stable_end < self._publisher.known_end:
                raise StaleReadError(
                    f"{self._task.journal}: the broker that answered has no record from offset {bounds.stable_end} on"
                )
            first = first_entry(self._task, reader, bounds.start, bounds.stable_end)
        if first is None or first.entry.identity is None:
            raise FatalTaskError(
                f"the journal of {self._task} no longer has its first entry",
                hint="copy into a new topic without records",
            )
        return first.entry.identity

    def _ends(self) -> Mapping[TopicPartition, int]:
        return self._reader.highest_ends(self._copy.partitions)

    def _pass(self, era: Era, ends: Mapping[TopicPartition, int]) -> None:
        starts = {partition: self._positions[_name(partition, era)] for partition in ends}
        lasts = {
            partition: last
            for partition, end in ends.items()
            if (last := last_committed(self._reader, partition, starts[partition], end)) is not None
        }
        outputs: list[Output] = []
        size = looked_at = 0
        with closing(self._environment.sources.open(self._task.group_id.consumer_group)) as source:
            for record in merged(source, self._environment.clock, starts, lasts):
                looked_at += 1
                if self._era(record) is era:
                    output = _as_it_was(record, self._copy.new.name)
                    outputs.append(output)
                    size += len(output.key or b"") + len(output.value or b"")
                partition = TopicPartition(record.topic(), record.partition())
                self._positions[_name(partition, era)] = record.offset() + 1
                if len(outputs) >= BATCH_RECORDS or size >= BATCH_BYTES or looked_at >= _SCANNED:
                    self._commit(EntryKind.COMMIT, outputs)
                    outputs, size, looked_at = [], 0, 0
        for partition, end in ends.items():  # only markers and aborted records follow the last record
            self._positions[_name(partition, era)] = max(end, self._positions[_name(partition, era)])
        if ends != starts:
            self._commit(EntryKind.COMMIT, outputs)

    def _check_topics(self) -> None:
        """Raise an error if a topic was deleted and created again during the copy."""
        now = self._environment.cluster.describe([self._copy.old.name, self._copy.new.name])
        inputs = {name: InputFacts(info.topic_id, info.partitions) for name, info in now.items()}
        check_identity(self._where, self._identity, structs.replace(self._identity, inputs=inputs))

    def _era(self, record: Record) -> Era:
        copy, number = self._copy, record.partition()
        era = era_of(record.key(), number, copy.before, copy.old.partitions)
        if era is Era.UNKNOWN:
            raise InputError(
                f"{copy.old.name}[{number}]@{record.offset()}: murmur2 assigns its key to another partition, with "
                f"{copy.before} and with {counted(copy.old.partitions, 'partition')}; the order of the key's records "
                "is unknown",
                hint="its producer uses another partitioner than murmur2; see runbooks/partitions-changed.md",
            )
        return era

    def _commit(self, kind: EntryKind, outputs: list[Output]) -> None:
        self._records += len(outputs)
        count = str(self._before + self._records).encode()
        identity = self._identity if kind is EntryKind.ACQUIRE else None
        self._publisher.publish(
            Commit(kind, dict(self._positions), outputs=outputs, identity=identity, extra={_COUNT: count})
        )
        self._progress(self._records)


class _NoState:
    """The state of a task without a table."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Do nothing: the journal entry holds the positions."""

    def close(self) -> None:
        """Do nothing: there is no open resource."""


_COUNT = "copied"  # key in an entry's `extra`: the number of records copied so far


def _name(partition: TopicPartition, era: Era) -> str:
    """The name of a position in the journal: partition and pass."""
    return f"{partition}/{era.value}"


def _as_it_was(record: Record, topic: str) -> Output:
    try:
        headers = tuple(headers_of(record))
    except UnreadableHeadersError as error:
        raise InputError(
            f"{record.topic()}[{record.partition()}]@{record.offset()} cannot be copied unchanged: {error}",
            hint="the Kafka client can neither read nor write this header name. Wait until retention deletes the "
            "record, or delete the records up to this offset, then run the same command again",
        ) from None
    return Output(topic, record.key(), record.value(), kept_timestamp(record), headers)
