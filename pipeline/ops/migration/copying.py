"""Copies a topic into one with another number of partitions: each committed record once, in its order per key.

A copy is a task like any other, with a journal of one partition and no table; its positions are those of each
partition of the old topic. The protocol:

    1 genesis, the first time; the new topic must be empty then
    2 fence: of two copies into one topic only the newer one continues
    3 a barrier, and the journal up to there, settled: how far it has come, and that both topics are the same ones still
    4 acquire
    5 where each pass ends: first that of the records that have moved, then that of the others
    6 copy the records from before the partitions changed, up to that end
    7 copy those from after it, up to theirs

Keys, values, headers and timestamps stay. A copied record and the position after it are in one transaction, so a
crash anywhere leaves both or none; the same call continues from there. 6 before 7, and 7 no further than was looked
up before 6 was: whatever a producer wrote to a key's old partition before it wrote to the new one comes first, also
while producers write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from msgspec import structs

from pipeline.config import WorkerSettings
from pipeline.core.headers import UnreadableHeadersError, headers_of
from pipeline.core.journal import EntryKind, Identity, InputFacts
from pipeline.core.names import GroupId, TaskId, TopicPartition, copy_name
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery import check_identity
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    FencedError,
    InputError,
    OutOfRangeError,
    StaleReadError,
    SupersededError,
)
from pipeline.ops.migration.merging import merged
from pipeline.ops.migration.widening import Era, era_of
from pipeline.ops.reading import last_committed
from pipeline.ports import Attempts, JournalReader, Output, Record, TopicInfo, growing, kept_timestamp
from pipeline.runtime.commit.admin_entry import settled_last
from pipeline.runtime.commit.journal_reader import first_entry, last_entries
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.commit.publisher import Publisher
from pipeline.runtime.environment import Environment
from pipeline.runtime.plan import PARTITIONER
from pipeline.runtime.restore.genesis import ensure_genesis

__all__ = ["Copied", "Copy", "copied_up_to", "copy_task", "run_copy"]

GROUP = "main"
BATCH_RECORDS = 5_000
BATCH_BYTES = 8 * 1024 * 1024
_MAX_RUNS = 7
_RUN_PAUSES_S = (0.1, 2.0)
_SCANNED = 100_000  # records of the other pass after which the position is worth a commit


@dataclass(frozen=True, slots=True)
class Copy:
    """What to copy. `before`: how many partitions `old` had when its first records came; mostly as many as now."""

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
    """What one run has copied; `before`: records that earlier runs had copied, as the journal counts them."""

    records: int
    before: int


def copy_task(new_topic: str) -> TaskId:
    """The task that copies into a topic."""
    return TaskId(copy_name(new_topic), GROUP, 0)


def copied_up_to(copy: Copy, reader: JournalReader) -> Mapping[TopicPartition, int]:
    """The offset below which all is copied, in each partition; empty before the first run."""
    task = copy_task(copy.new.name)
    entries = last_entries(task.journal, reader, reader.bounds(task.journal), 1)
    positions = entries[-1].entry.positions if entries else {}
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
    """Copy up to the old topic's end as it is when this begins. `progress` is told the records copied so far.

    Raises ConfigError (the topics do not fit, or are not those that it began with), InputError (a record that
    cannot be put in order), FencedError (another copy runs), UnreachableError, FatalTaskError.
    """
    runs = Attempts(environment.clock, _MAX_RUNS, growing(*_RUN_PAUSES_S))
    try:
        while True:
            with closing(_Run(copy, owner, environment, settings, progress)) as run:
                try:
                    return run.run()
                except (StaleReadError, OutOfRangeError):
                    # A broker that is not the leader any more was asked; new clients may find another one.
                    if not runs.pause():
                        raise
    except (FencedError, SupersededError) as error:
        raise FencedError(
            f"another copy into topic {copy.new.name} runs, and this one has ended: {error.message}",
            hint="nothing is lost or doubled; when no other one runs, run the same command again",
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
                place
                for place in (TopicPartition(new.name, number) for number in range(new.partitions))
                if self._reader.bounds(place).end
            ]
            if held and self._environment.cluster.describe_by_most([group.journal_topic]):
                held = []  # the copy has begun, and one broker does not know its journal
            if held:
                raise ConfigError(
                    f"{held[0]} holds records already, and this copy has not begun: they would mix",
                    hint="copy into a topic that is new",
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
                f"topic {self._copy.new.name} was begun as a {before.topology}; "
                f"this is a {self._identity.topology}",
                hint="copy into a topic that is new",
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
        for place in self._copy.partitions:
            start = self._reader.bounds(place).start
            for name in (_name(place, era) for era in self._copy.passes):
                self._positions[name] = at = head.entry.positions.get(name, start)
                if at < start:
                    raise FatalTaskError(
                        f"{place} no longer holds offsets {at} to {start - 1}, which have not been copied",
                        hint="copy what is left into a topic that is new, with --incomplete",
                    )
        self._commit(EntryKind.ACQUIRE, [])  # 4

    def _began_with(self) -> Identity:
        """The identity in the genesis entry: a copy's journal is never truncated."""
        with closing(self._environment.journals()) as reader:
            bounds = reader.bounds(self._task.journal)
            if bounds.stable_end < self._publisher.known_end:
                raise StaleReadError(
                    f"{self._task.journal}: the broker that was asked ends at {bounds.stable_end}"
                )
            first = first_entry(self._task, reader, bounds.start, bounds.stable_end)
        if first is None or first.entry.identity is None:
            raise FatalTaskError(
                f"the journal of {self._task} has lost its beginning", hint="copy into a topic that is new"
            )
        return first.entry.identity

    def _ends(self) -> Mapping[TopicPartition, int]:
        return self._reader.highest_ends(self._copy.partitions)

    def _pass(self, era: Era, ends: Mapping[TopicPartition, int]) -> None:
        starts = {place: self._positions[_name(place, era)] for place in ends}
        lasts = {
            place: last
            for place, end in ends.items()
            if (last := last_committed(self._reader, place, starts[place], end)) is not None
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
                place = TopicPartition(record.topic(), record.partition())
                self._positions[_name(place, era)] = record.offset() + 1
                if len(outputs) >= BATCH_RECORDS or size >= BATCH_BYTES or looked_at >= _SCANNED:
                    self._commit(EntryKind.COMMIT, outputs)
                    outputs, size, looked_at = [], 0, 0
        for place, end in ends.items():  # what lies behind the last record is no record
            self._positions[_name(place, era)] = max(end, self._positions[_name(place, era)])
        if ends != starts:
            self._commit(EntryKind.COMMIT, outputs)

    def _check_topics(self) -> None:
        """Before saying that all is copied: the topics are still those that were read and written."""
        now = self._environment.cluster.describe([self._copy.old.name, self._copy.new.name])
        inputs = {name: InputFacts(info.topic_id, info.partitions) for name, info in now.items()}
        check_identity(self._where, self._identity, structs.replace(self._identity, inputs=inputs))

    def _era(self, record: Record) -> Era:
        copy, number = self._copy, record.partition()
        era = era_of(record.key(), number, copy.before, copy.old.partitions)
        if era is Era.UNKNOWN:
            raise InputError(
                f"{copy.old.name}[{number}]@{record.offset()}: its key belongs there neither by {copy.before} nor by "
                f"{copy.old.partitions} partitions, so its order among the key's other records cannot be told",
                hint="its producer places keys by another rule than murmur2; see runbooks/partitions-changed.md",
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
    """A copy has no table."""

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing is held."""


_COUNT = "copied"  # in an entry's extra: records so far


def _name(partition: TopicPartition, era: Era) -> str:
    """Names a position of the copy: partition and pass."""
    return f"{partition}/{era.value}"


def _as_it_was(record: Record, topic: str) -> Output:
    try:
        headers = tuple(headers_of(record))
    except UnreadableHeadersError as error:
        raise InputError(
            f"{record.topic()}[{record.partition()}]@{record.offset()} cannot be copied as it is: {error}",
            hint="the Kafka client can neither read nor write such a name. The copy resumes after this record when it "
            "is no longer in the topic: wait for its retention, or delete the records up to this offset",
        ) from None
    return Output(topic, record.key(), record.value(), kept_timestamp(record), headers)
