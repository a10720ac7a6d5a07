"""A Kafka cluster in memory: `MemoryBroker`, with the parts of its behaviour that the protocol rests on.

Transactions take their place in the log while they are open and end with a marker that occupies an offset;
committed readers stop at the first open one and never see an aborted record; a newer producer of the same id
fences the older one; a topic created again has another id. Deterministic: nothing happens by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, FencedError, InvariantError
from pipeline.ports import Clock, Output, TopicInfo, TopicSpec
from pipeline.testing.faults import Faults
from pipeline.testing.memory_log import (
    DEFAULTS,
    MemoryRecord,
    MemoryTopic,
    MemoryTransaction,
    MissingTopicError,
    PartitionLog,
    RefusedRecordError,
    StaleLeader,
    TransactionState,
    check_settings,
    refusal,
)

__all__ = ["MemoryBroker", "MemoryGroups", "Session"]

SESSION_S = 10.0


class Session:
    """A member of a group. It is alive if its worker has made progress in the last `SESSION_S` seconds."""

    def __init__(self, client_id: str, progress: Callable[[], object], clock: Clock) -> None:
        self.client_id = client_id
        self._progress = progress
        self._clock = clock
        self._last: object = None
        self._seen_s = clock.monotonic_s()

    @property
    def alive(self) -> bool:
        now, progress = self._clock.monotonic_s(), self._progress()
        if progress != self._last:
            self._last, self._seen_s = progress, now
        return now - self._seen_s <= SESSION_S


class MemoryGroups:
    """The members of every group. One whose session has expired is listed again when it makes progress."""

    def __init__(self) -> None:
        self._sessions: dict[str, list[Session]] = {}

    def join(self, group: str, session: Session) -> None:
        self._sessions.setdefault(group, []).append(session)

    def leave(self, group: str, session: Session) -> None:
        self._sessions[group].remove(session)

    def member_ids(self, group: str) -> list[str]:
        return [session.client_id for session in self._sessions.get(group, []) if session.alive]


@dataclass(slots=True)
class _Producer:
    """What the coordinator knows of one transactional id."""

    epoch: int = 0
    transaction: MemoryTransaction | None = None


class MemoryBroker:
    """The cluster that all in-memory clients share. May be used from several threads.

    `wall_ms`: the brokers' clock, by which they refuse timestamps; the machine's unless one is given. `defaults`:
    settings of topics that do not have their own.
    """

    cluster_id = "memory-cluster"

    def __init__(
        self, wall_ms: Callable[[], int] | None = None, defaults: Mapping[str, str] | None = None
    ) -> None:
        self.refuses: Callable[[Output], str | None] = lambda _output: None  # what no setting tells, and why
        self._defaults = {**DEFAULTS, **(defaults or {})}
        self.wall_ms = wall_ms or (lambda: time.time_ns() // 1_000_000)
        self.faults = Faults()
        self.groups = MemoryGroups()
        self._lock = threading.RLock()
        self._topics: dict[str, MemoryTopic] = {}
        self._producers: dict[str, _Producer] = {}
        self._offsets: dict[str, dict[TopicPartition, int]] = {}
        self._created = 0
        self._keyless = 0
        self._stale_leader: StaleLeader | None = None

    # Faults and events that a test brings about

    def fail_next(
        self,
        call: str,
        error: BaseException,
        *,
        after: bool = False,
        where: str | None = None,
        skip: int = 0,
    ) -> None:
        """Let the next `call` raise `error`, instead of acting or `after` it has acted; `skip` calls succeed first.

        Calls of a producer (`where`: its transactional id): init, begin, send, append, flush, commit, abort.
        Of a reader (`where`: "topic[partition]"): bounds, read. Of a source (`where`: its group): poll. Of
        the cluster: create, delete, and (`where`: a topic) describe, configure, grow. A commit whose outcome is
        unknown is an UnknownOutcomeError, with `after` when it did happen.
        """
        self.faults.order(call, error, after=after, where=where, skip=skip)

    def fence(self, transactional_id: str) -> None:
        """A newer producer of this id appears elsewhere: the open transaction aborts, the epoch rises."""
        self.init(transactional_id)

    def expire(self, transactional_id: str) -> None:
        """The transaction timed out: the broker aborts it and raises the epoch, as it does for real."""
        self.init(transactional_id)

    def stray_commit(self, transactional_id: str) -> None:
        """A commit request that was delayed on its way arrives now and ends what is open, though only half
        of it may have been written.
        """
        with self._lock:
            self._end(self._producers[transactional_id], TransactionState.COMMITTED)

    def truncate(self, partition: TopicPartition, before: int) -> None:
        """Remove every record below `before`, as retention or delete_records do."""
        with self._lock:
            self._log(partition).truncate(before)

    def lose_tail(self, partition: TopicPartition, start: int) -> None:
        """Remove every record from `start` on, as an unclean election does."""
        with self._lock:
            self._log(partition).lose_tail(start)

    def add_stale_leader(self, answers: Callable[[], bool] = lambda: True) -> StaleLeader:
        """A broker loses its controllers: others lead from now on, and it keeps answering as of now.

        `answers` is called for each reader that is opened, each partition that a source is assigned, and each
        description of topics: whether this one is answered by the stale leader. It may be replaced in what is
        returned.
        """
        with self._lock:
            self.heal()
            places = [
                TopicPartition(name, number)
                for name, topic in self._topics.items()
                for number in range(len(topic.partitions))
            ]
            described = {name: info for name in self._topics if (info := self.describe(name)) is not None}
            bounds = {place: self.bounds(place) for place in places}
            self._stale_leader = StaleLeader(described, bounds, answers)
            return self._stale_leader

    def heal(self) -> None:
        """The stale leader finds its controllers again, and answers like any other."""
        stale_leader, self._stale_leader = self._stale_leader, None
        if stale_leader is not None:
            stale_leader.over = True

    def stale_leader_asked(self) -> StaleLeader | None:
        """The stale leader, where a client that is opened now asks that one."""
        return self._stale_leader if self._stale_leader is not None and self._stale_leader.chosen() else None

    def produce(self, *outputs: Output, partition: int | None = None) -> list[MemoryRecord]:
        """Write records outside of any transaction; as they are now."""
        written = []
        with self._lock:
            for output in outputs:
                place = self._place(output, partition)
                offset = self._write(place, output, None)
                written.append(MemoryRecord(place, offset, output))
        return written

    def records(self, topic: str, *, committed: bool = True) -> list[MemoryRecord]:
        """All records of a topic, partition by partition; those of open and aborted transactions as asked."""
        with self._lock:
            count = len(self._topic(topic).partitions)
            return [
                record
                for number in range(count)
                for record in self.read(TopicPartition(topic, number), 0, committed=committed)
            ]

    # Topics

    def create(self, spec: TopicSpec, *, check_only: bool = False) -> None:
        with self._lock:
            if spec.name in self._topics:
                return
            if spec.partitions < 1:
                raise ConfigError(f"topic {spec.name} cannot have {counted(spec.partitions, 'partition')}")
            check_settings(spec.name, spec.config)
            if check_only:
                return
            self._created += 1
            self._topics[spec.name] = MemoryTopic(
                topic_id=f"topic-{self._created}",
                replication=spec.replication or 1,
                defaults=self._defaults,
                overridden=dict(spec.config),
                partitions=[PartitionLog() for _ in range(spec.partitions)],
            )

    def delete(self, topic: str) -> None:
        with self._lock:
            self._topics.pop(topic, None)

    def add_partitions(self, topic: str, count: int) -> None:
        with self._lock:
            self._topic(topic).partitions.extend(PartitionLog() for _ in range(count))

    def configure(self, topic: str, settings: Mapping[str, str | None], *, check_only: bool = False) -> None:
        """Set a topic's settings; None: back to the default. Raises ConfigError, MissingTopicError."""
        with self._lock:
            found = self._topic(topic)
            check_settings(topic, settings)
            if check_only:
                return
            for name, value in settings.items():
                if value is None:
                    found.overridden.pop(name, None)
                else:
                    found.overridden[name] = value

    def topics(self) -> list[str]:
        with self._lock:
            return list(self._topics)

    def describe(self, topic: str) -> TopicInfo | None:
        with self._lock:
            found = self._topics.get(topic)
            if found is None:
                return None
            return TopicInfo(
                topic,
                found.topic_id,
                len(found.partitions),
                found.replication,
                found.config,
                frozenset(found.overridden),
            )

    # Reading

    def bounds(self, partition: TopicPartition) -> tuple[int, int, int]:
        """(start, end for committed readers, end)."""
        with self._lock:
            log = self._log(partition)
            return log.start, self._stable_end(partition, log), log.end

    def read(
        self, partition: TopicPartition, start: int, *, committed: bool = True, limit: int | None = None
    ) -> list[MemoryRecord]:
        """Up to `limit` visible records from `start` on."""
        with self._lock:
            log = self._log(partition)
            end = self._stable_end(partition, log) if committed else log.end
            found: list[MemoryRecord] = []
            for record, transaction in log.between(start, end):
                if limit is not None and len(found) == limit:
                    break
                if record is None or (
                    committed and transaction and transaction.outcome is TransactionState.ABORTED
                ):
                    continue
                found.append(record.fetched())
            return found

    def commit_offsets(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        with self._lock:
            self._offsets.setdefault(group, {}).update(positions)

    def offsets(self, group: str) -> dict[TopicPartition, int]:
        with self._lock:
            return dict(self._offsets.get(group, {}))

    def forget_offsets(self, group: str) -> None:
        """The consumer group is deleted."""
        with self._lock:
            self._offsets.pop(group, None)

    # Transactions

    def init(self, transactional_id: str) -> int:
        """Abort what is open under this id and raise its epoch, which is returned."""
        with self._lock:
            producer = self._producers.setdefault(transactional_id, _Producer())
            self._end(producer, TransactionState.ABORTED)
            producer.epoch += 1
            return producer.epoch

    def write(
        self, transactional_id: str, epoch: int, records: Sequence[tuple[Output, int | None]]
    ) -> list[tuple[TopicPartition, int]]:
        """Write records, each to its partition or the one of its key; where they are now.

        Raises FencedError, MissingTopicError, RefusedRecordError; what was written before stays, uncommitted.
        """
        with self._lock:
            producer = self._current(transactional_id, epoch)
            if producer.transaction is None:
                producer.transaction = MemoryTransaction()
            written = []
            for output, number in records:
                place = self._place(output, number)
                written.append((place, self._write(place, output, producer.transaction)))
            return written

    def end(self, transactional_id: str, epoch: int, *, commit: bool) -> None:
        """Commit or abort. Raises FencedError."""
        with self._lock:
            producer = self._current(transactional_id, epoch)
            self._end(producer, TransactionState.COMMITTED if commit else TransactionState.ABORTED)

    def _current(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers.get(transactional_id)
        if producer is None:
            raise InvariantError(f"{transactional_id} was never initialised")
        if producer.epoch != epoch:
            raise FencedError(f"{transactional_id}: epoch {epoch} was fenced by {producer.epoch}")
        return producer

    def _end(self, producer: _Producer, outcome: TransactionState) -> None:
        transaction, producer.transaction = producer.transaction, None
        if transaction is None:
            return
        transaction.outcome = outcome
        for partition in transaction.partitions:
            if self._exists(partition):
                self._log(partition).entries.append((None, transaction))

    def _write(self, partition: TopicPartition, output: Output, transaction: MemoryTransaction | None) -> int:
        log = self._log(partition)
        reason = refusal(output, self._topic(partition.topic).config, self.wall_ms())
        reason = reason or self.refuses(output)
        if reason is not None:
            raise RefusedRecordError(partition.topic, reason)
        offset = log.end
        log.entries.append((MemoryRecord(partition, offset, output), transaction))
        if transaction is not None:
            transaction.partitions.setdefault(partition, offset)
        return offset

    def _place(self, output: Output, number: int | None) -> TopicPartition:
        count = len(self._topic(output.topic).partitions)
        if number is None and output.key is not None:
            number = partition_of(output.key, count)
        elif number is None:
            number = self._keyless % count
            self._keyless += 1
        return TopicPartition(output.topic, number)

    def _stable_end(self, partition: TopicPartition, log: PartitionLog) -> int:
        open_ones = [p.transaction for p in self._producers.values() if p.transaction is not None]
        return min((t.partitions[partition] for t in open_ones if partition in t.partitions), default=log.end)

    def _exists(self, partition: TopicPartition) -> bool:
        topic = self._topics.get(partition.topic)
        return topic is not None and partition.partition < len(topic.partitions)

    def _topic(self, name: str) -> MemoryTopic:
        try:
            return self._topics[name]
        except KeyError:
            raise MissingTopicError(f"topic {name} does not exist") from None

    def _log(self, partition: TopicPartition) -> PartitionLog:
        partitions = self._topic(partition.topic).partitions
        if not 0 <= partition.partition < len(partitions):
            raise MissingTopicError(f"{partition} does not exist")
        return partitions[partition.partition]
