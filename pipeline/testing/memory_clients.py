"""The runtime's ports on one `MemoryBroker`: cluster, sources, producers, journal reader.

They behave as the Kafka adapters do where the two can be told apart: the same contract tests run on both.
Nothing waits: an empty poll returns at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.core.names import TopicPartition
from pipeline.core.suggestions import counted
from pipeline.errors import (
    AbortableError,
    ConfigError,
    InvariantError,
    OutOfRangeError,
    RefusedError,
    StaleReadError,
    TruncatedError,
    UnreachableError,
)
from pipeline.ports import JournalBounds, Output, PartitionFailure, Polled, TopicInfo, TopicSpec
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_log import MemoryRecord, MissingTopicError, RefusedRecordError, StaleLeader

__all__ = [
    "MemoryCluster",
    "MemoryJournalReader",
    "MemoryProducer",
    "MemoryProducers",
    "MemorySource",
    "MemorySources",
]


class MemoryCluster:
    """`ports.Cluster`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def cluster_id(self) -> str:
        return self._broker.cluster_id

    def topics(self) -> list[str]:
        return self._broker.topics()

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        with self._broker.faults.at("describe", *topics):
            found = {name: self._described_by(name, self._broker.stale_leader_asked()) for name in topics}
            return {name: info for name, info in found.items() if info is not None}

    def describe_by_most(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The stale leader is one of several."""
        with self._broker.faults.at("describe", *topics):
            found = {name: self._broker.describe(name) for name in topics}
            return {name: info for name, info in found.items() if info is not None}

    def create(self, specs: Sequence[TopicSpec], *, check_only: bool = False) -> None:
        with self._broker.faults.at("create"):
            for spec in specs:
                self._broker.create(spec, check_only=check_only)

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        with self._broker.faults.at("configure", topic):
            self._described(topic)
            self._broker.configure(topic, settings, check_only=check_only)

    def grow(self, topic: str, partitions: int, *, check_only: bool = False) -> None:
        with self._broker.faults.at("grow", topic):
            missing = partitions - self._described(topic).partitions
            if missing < 1:
                raise ConfigError(
                    f"topic {topic}: {counted(partitions, 'partition')} would not be an increase"
                )
            if not check_only:
                self._broker.add_partitions(topic, missing)

    def brokers(self) -> int:
        return 1

    def default_replication(self) -> int:
        return min(3, self.brokers())

    def delete(self, topics: Sequence[str]) -> None:
        with self._broker.faults.at("delete"):
            for name in topics:
                self._broker.delete(name)

    def committed(self, consumer_group: str) -> dict[TopicPartition, int]:
        return self._broker.offsets(consumer_group)

    def forget(self, consumer_group: str) -> None:
        with self._broker.faults.at("forget", consumer_group):
            self._broker.forget_offsets(consumer_group)

    def member_ids(self, consumer_group: str) -> list[str]:
        with self._broker.faults.at("member_ids"):
            return self._broker.groups.member_ids(consumer_group)

    def truncate(self, partition: TopicPartition, before: int) -> None:
        with self._broker.faults.at("truncate", str(partition)):
            _start, stable_end, _end = _bounds(self._broker, partition)
            if before > stable_end:
                raise InvariantError(f"{partition} ends at {stable_end}, below {before}")
            self._broker.truncate(partition, before)

    def close(self) -> None:
        """Nothing is held."""

    def _described_by(self, topic: str, stale_leader: StaleLeader | None) -> TopicInfo | None:
        now = self._broker.describe(topic)
        return now if stale_leader is None else stale_leader.describe(topic, now)

    def _described(self, topic: str) -> TopicInfo:
        found = self._broker.describe(topic)
        if found is None:
            raise ConfigError(f"topic {topic} does not exist", hint="check its name and repeat")
        return found


class MemorySources:
    """`ports.Sources`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def open(self, consumer_group: str, partitions: int = 0) -> MemorySource:  # noqa: ARG002 - of the port
        return MemorySource(self._broker, consumer_group)


class MemorySource:
    """`ports.Source`. Partitions take turns, so that a busy one does not hide the others."""

    def __init__(self, broker: MemoryBroker, group: str) -> None:
        self._broker = broker
        self._group = group
        self._stale_leader: dict[TopicPartition, StaleLeader | None] = {}  # whom each partition is read from
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._failed: set[TopicPartition] = set()

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        again = self._positions.keys() & positions.keys()
        if again:
            raise InvariantError(f"assigned twice: {sorted(again)}")
        self._positions.update(positions)
        self._stale_leader.update({partition: self._broker.stale_leader_asked() for partition in positions})

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._paused.discard(partition)
            self._failed.discard(partition)

    def poll(self, max_records: int, timeout_s: float) -> Polled:  # noqa: ARG002 (nothing to wait for)
        records: list[MemoryRecord] = []
        failures: list[PartitionFailure] = []
        with self._broker.faults.at("poll", self._group):
            for partition in list(self._positions):
                if partition in self._paused or partition in self._failed or len(records) == max_records:
                    continue
                found = self._read(partition, max_records - len(records), failures)
                if found:
                    # To the back of the queue.
                    del self._positions[partition]
                    self._positions[partition] = found[-1].offset() + 1
                    records.extend(found)
        return Polled(records, failures)

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        unknown = positions.keys() - self._positions.keys()
        if unknown:
            raise InvariantError(f"rewound without being assigned: {sorted(unknown)}")
        self._positions.update(positions)
        self._failed.difference_update(positions)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused.update(p for p in partitions if p in self._positions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        start, stable_end, _end = _bounds(self._broker, partition, self._stale_leader.get(partition))
        return start, stable_end

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        self._broker.commit_offsets(self._group, positions)

    def close(self) -> None:
        self._positions.clear()
        self._paused.clear()

    def _read(
        self, partition: TopicPartition, limit: int, failures: list[PartitionFailure]
    ) -> list[MemoryRecord]:
        position = self._positions[partition]
        try:
            start, _stable_end, _ = self._broker.bounds(partition)
            _, visible_end, end = _bounds(self._broker, partition, self._stale_leader.get(partition))
        except (MissingTopicError, UnreachableError):
            return []  # a deleted topic is silent, as it is for real; the cluster's description tells
        if not start <= position <= end:
            self._failed.add(partition)
            error = OutOfRangeError(
                f"{partition}: position {position} is outside what it holds, {start} to {end}",
                hint="follow runbooks/input-expired.md",
            )
            failures.append(PartitionFailure(partition, error))
            return []
        found = self._broker.read(partition, position, limit=limit)
        return [record for record in found if record.offset() < visible_end]


class MemoryProducers:
    """`ports.TransactionalClients`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def open(self, transactional_id: str) -> MemoryProducer:
        return MemoryProducer(self._broker, transactional_id)

    def learn(self, message_bytes: Mapping[str, int]) -> None:
        """A batch is one record here: nothing to keep within a limit."""


class MemoryProducer:
    """`ports.TransactionalProducer`. As with the real client, records reach the broker with `flush`."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch: int | None = None
        self._open = False
        self._failed: AbortableError | None = None
        self._queue: list[tuple[Output, int | None]] = []
        self._appended: dict[TopicPartition, int] = {}

    def init(self) -> None:
        with self._broker.faults.at("init", self._id):
            self._epoch = self._broker.init(self._id)

    def begin(self) -> None:
        if self._epoch is None or self._open:
            raise InvariantError(f"{self._id}: begin before init or inside a transaction")
        with self._broker.faults.at("begin", self._id):
            self._open = True
            self._appended.clear()

    def send(self, outputs: Sequence[Output]) -> None:
        self._check_open()
        with self._broker.faults.at("send", self._id):
            self._queue.extend((self._stamped(Output(*output)), None) for output in outputs)

    def append(self, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None) -> None:
        self._check_open()
        with self._broker.faults.at("append", self._id):
            self._queue.extend(
                (self._stamped(Output(journal.topic, key, c, 0)), journal.partition) for c in chunks
            )

    def flush(self) -> int:
        """The offset of the first appended chunk, -1 without any."""
        self._check_open()
        with self._broker.faults.at("flush", self._id):
            return self._deliver()

    def appended_at(self) -> Mapping[TopicPartition, int]:
        return dict(self._appended)

    def commit(self, timeout_s: float | None = None) -> None:  # noqa: ARG002 - answers at once
        self._check_open()
        with self._broker.faults.at("commit", self._id):
            self._deliver()
            self._broker.end(self._id, self._checked_epoch(), commit=True)
        self._open = False  # a client that is told of a failure does not know that it has committed

    def abort(self, timeout_s: float | None = None) -> None:  # noqa: ARG002 - as above
        if not self._open:
            raise InvariantError(f"{self._id}: abort outside of a transaction")
        with self._broker.faults.at("abort", self._id):
            self._queue.clear()
            self._failed = None
            self._broker.end(self._id, self._checked_epoch(), commit=False)
            self._open = False

    def close(self) -> None:
        """An open transaction stays open on the broker until the successor's `init`."""
        self._queue.clear()
        self._open = False
        self._epoch = None

    def _stamped(self, output: Output) -> Output:
        """The real client takes the timestamp 0 for none, and sends the present."""
        return output if output.timestamp_ms else output._replace(timestamp_ms=self._broker.wall_ms())

    def _deliver(self) -> int:
        queue, self._queue = self._queue, []
        if not queue:
            return -1
        try:
            written = self._broker.write(self._id, self._checked_epoch(), queue)
        except MissingTopicError as error:
            self._failed = AbortableError(f"{self._id}: {error}")
            raise self._failed from error
        except RefusedRecordError as error:
            appended = {output.topic for output, number in queue if number is not None}
            message = f"{self._id}: {error}"
            self._failed = (
                AbortableError(message)
                if error.topic in appended
                else RefusedError(message, topic=error.topic)
            )
            raise self._failed from error
        for (_, number), (place, offset) in zip(queue, written, strict=True):
            if number is not None:
                self._appended.setdefault(place, offset)
        return next(iter(self._appended.values()), -1)

    def _check_open(self) -> None:
        if not self._open:
            raise InvariantError(f"{self._id}: outside of a transaction")
        if self._failed is not None:
            raise self._failed

    def _checked_epoch(self) -> int:
        if self._epoch is None:
            raise InvariantError(f"{self._id}: used before init or after close")
        return self._epoch


class MemoryJournalReader:
    """`ports.JournalReader`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._stale_leader = broker.stale_leader_asked()

    def bounds(self, journal: TopicPartition) -> JournalBounds:
        with self._broker.faults.at("bounds", str(journal)):
            return JournalBounds(*_bounds(self._broker, journal, self._stale_leader))

    def starts(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self.bounds(place).start for place in partitions}

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {journal: self.bounds(journal).stable_end for journal in journals}

    def ends(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self.bounds(place).end for place in partitions}

    def highest_ends(
        self, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> Mapping[TopicPartition, int]:
        """The stale leader is one of several."""
        with self._broker.faults.at("bounds"):
            return {place: _bounds(self._broker, place)[1 if committed else 2] for place in partitions}

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        with self._broker.faults.at("bounds", str(partition)):
            first, stable_end, _ = _bounds(self._broker, partition, self._stale_leader)
            records = self._broker.read(partition, first)
            late = (r.offset() for r in records if r.timestamp()[1] >= timestamp_ms)
            return min(next(late, stable_end), stable_end)

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        if start >= end:
            return
        with self._broker.faults.at("read", str(journal)):
            first, stable_end, _end = _bounds(self._broker, journal, self._stale_leader)
            if start < first:
                raise TruncatedError(f"{journal}: {start} is below what it holds, from {first} on")
            for record in self._broker.read(journal, start):
                if record.offset() >= end:
                    return
                if record.offset() >= stable_end:
                    break
                yield record.offset(), record.value() or b""
            if stable_end < end:
                raise StaleReadError(f"{journal} ends at {stable_end}, below the {end} it was to be read to")

    def close(self) -> None:
        """Nothing is held."""


def _bounds(
    broker: MemoryBroker, partition: TopicPartition, stale_leader: StaleLeader | None = None
) -> tuple[int, int, int]:
    try:
        now = broker.bounds(partition)
    except MissingTopicError as error:
        raise UnreachableError(f"bounds of {partition}: {error}") from error
    found = now if stale_leader is None else stale_leader.bounds(partition, now)
    if found is None:
        raise UnreachableError(f"bounds of {partition}: the broker that was asked does not know it")
    return found
