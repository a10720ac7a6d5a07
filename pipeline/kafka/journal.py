"""Reads journals: `KafkaJournalReader`.

The ends are requested from the broker, with both isolation levels. A cached end may be old, and a restore up to it
stops too early or waits forever. A read ends by its position: the marker of a transaction occupies the offset after
its records, so the last record before the end is never at end - 1.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.config import KafkaSettings
from pipeline.core.names import JOURNAL_READER, TopicPartition
from pipeline.core.suggestions import counted
from pipeline.errors import OutOfRangeError, StaleReadError, TruncatedError, UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import NO_ANSWER, error_of, partition_failure, request_failure, until_settled
from pipeline.ports import JournalBounds

__all__ = ["KafkaJournalReader"]

_REQUEST_TIMEOUT_S = 10.0
_ONE_BROKER_TIMEOUT_S = 5.0  # other brokers can answer
_BATCH = 2_000
_POLL_S = 0.05
_SHORT_TIMEOUT_S = 3.0  # how long a journal may end below the requested end
_SILENCE_TIMEOUT_S = 30.0  # how long no message may arrive


class KafkaJournalReader:
    """`ports.JournalReader`. Thread-safe: every read has its own consumer."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = clients.open_client(AdminClient, clients.admin(settings))
        self._lock = threading.Lock()
        self._idle: list[tuple[Consumer, set[str]]] = []  # each with the topics that it has read before
        self._closed = False
        self._known: set[str] = set()  # topics whose leaders are in the client's cache

    def bounds(self, journal: TopicPartition) -> JournalBounds:
        """The bounds. The stable end is requested before the end, so that it is never above it."""
        earliest, latest = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        start = self._offset(journal, earliest, IsolationLevel.READ_UNCOMMITTED)
        stable_end = self._offset(journal, latest, IsolationLevel.READ_COMMITTED)
        end = self._offset(journal, latest, IsolationLevel.READ_UNCOMMITTED)
        return JournalBounds(start=start, stable_end=stable_end, end=end)

    def starts(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset of each partition, in one request."""
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        return self._offsets(partitions, earliest, IsolationLevel.READ_UNCOMMITTED) if partitions else {}

    def stable_ends(self, journals: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, in one request."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._offsets(journals, latest, IsolationLevel.READ_COMMITTED)

    def ends(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The end of each partition for all readers, in one request."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._offsets(partitions, latest, IsolationLevel.READ_UNCOMMITTED)

    def highest_ends(
        self, partitions: Sequence[TopicPartition], *, committed: bool = True
    ) -> Mapping[TopicPartition, int]:
        """The stable end of each partition, requested through every broker; or the end, without `committed`.

        Returns the answer with the newest leader epoch, or the highest of equal epochs. Raises UnreachableError unless
        most of the brokers answer, because a stale leader also answers.
        """
        if not partitions:
            return {}
        servers = clients.broker_addresses(self._admin, _REQUEST_TIMEOUT_S, "brokers of the cluster")
        if len(servers) < 2:
            return self.stable_ends(partitions) if committed else self.ends(partitions)
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        with ThreadPoolExecutor(len(servers), "kafka-ends") as threads:
            requests = [
                threads.submit(_ends_through, server, self._settings, partitions, isolation)
                for server in servers
            ]
        answers = [ends for future in requests if (ends := future.result()) is not None]
        if 2 * len(answers) <= len(servers):
            raise UnreachableError(
                f"ends of {partitions[0]} and others: {len(answers)} of {counted(len(servers), 'broker')} answered",
                hint="most brokers must answer, because one may be a stale leader: check the brokers, then try again",
            )
        return {place: max(ends[place] for ends in answers).offset for place in partitions}

    def offset_at(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """The offset of the first record with this timestamp or a later one; the stable end if there is none."""
        spec = OffsetSpec.for_timestamp(timestamp_ms)
        found = self._offset(partition, spec, IsolationLevel.READ_COMMITTED)
        return found if found >= 0 else self.bounds(partition).stable_end

    def read(self, journal: TopicPartition, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, chunk) of every committed record in [start, end), in order."""
        if start >= end:
            return
        consumer, topics = self._borrow_consumer()
        try:
            if topics and journal.topic not in topics:
                # The client looks up the leaders of another topic only in its next scan, within 1 s.
                consumer.list_topics(journal.topic, timeout=_REQUEST_TIMEOUT_S)
            topics.add(journal.topic)
            consumer.assign([ClientPartition(journal.topic, journal.partition, start)])
            yield from self._checked(_records(consumer, journal, start, end), journal)
        except KafkaException as error:
            needs = f"Read on topic {journal.topic}"
            raise request_failure(error_of(error), f"reading {journal}", needs) from error
        finally:
            self._return_consumer(consumer, topics)

    def _checked(
        self, records: Iterator[tuple[int, bytes]], journal: TopicPartition
    ) -> Iterator[tuple[int, bytes]]:
        """The records.

        An out-of-range position becomes TruncatedError, or StaleReadError if it is after the log's end.
        """
        try:
            yield from records
        except _OutOfRangeError as error:
            start = self.bounds(journal).start
            if start > error.position:
                text = (
                    f"{journal} was truncated below offset {start}, and was to be read from {error.position}"
                )
                raise TruncatedError(text) from error
            raise StaleReadError(f"{journal}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for consumer, _ in idle:
            consumer.close()

    def _offset(self, journal: TopicPartition, spec: OffsetSpec, isolation: IsolationLevel) -> int:
        """One offset. The request is retried while the partition has no leader, as after its creation."""
        return self._offsets([journal], spec, isolation)[journal]

    def _offsets(
        self, journals: Sequence[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[TopicPartition, int]:
        where = f"bounds of {', '.join(sorted(set(map(str, journals)))[:3])}"
        needs = f"Describe on {', '.join(sorted({f'topic {journal.topic}' for journal in journals})[:3])}"
        return until_settled(lambda: self._offsets_once(journals, spec, isolation, where), where, needs)

    def _offsets_once(
        self, journals: Sequence[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel, where: str
    ) -> dict[TopicPartition, int]:
        for topic in {journal.topic for journal in journals} - self._known:
            # If the leader is not in the client's cache, the client sometimes misses the response to its own lookup
            # and retries after 3 s. A plain metadata request fills the cache at once.
            self._admin.list_topics(topic, timeout=_REQUEST_TIMEOUT_S)
            self._known.add(topic)
        by_client_partition = {ClientPartition(*journal): journal for journal in journals}
        futures = self._admin.list_offsets(
            dict.fromkeys(by_client_partition, spec),
            isolation_level=isolation,
            request_timeout=_REQUEST_TIMEOUT_S,
        )
        self._admin.poll(0)  # forwards the client's log
        answers: dict[TopicPartition, int] = {}
        for partition, future in futures.items():
            try:
                answer: Any = future.result(timeout=_REQUEST_TIMEOUT_S + 5)
            except TimeoutError as error:
                raise UnreachableError(f"{where}: no answer", hint=NO_ANSWER) from error
            except KafkaException:
                # The client would ask with the same leader and leader epoch for up to 5 minutes.
                self._known.discard(partition.topic)
                raise
            if answer.offset == OFFSET_INVALID:
                # The client reports a broker that did not answer in time like this. It must not be taken for an
                # end: the journal would look empty.
                raise UnreachableError(f"{where}: no answer", hint=NO_ANSWER)
            answers[by_client_partition[partition]] = int(answer.offset)
        return answers

    def _borrow_consumer(self) -> tuple[Consumer, set[str]]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return clients.open_client(Consumer, clients.journal(self._settings)), set()

    def _return_consumer(self, consumer: Consumer, topics: set[str]) -> None:
        consumer.unassign()
        with self._lock:
            if not self._closed:
                self._idle.append((consumer, topics))
                return
        consumer.close()


class _End(NamedTuple):
    """The end of a partition according to one broker. Compared by the leader epoch first."""

    leader_epoch: int
    offset: int


def _ends_through(
    server: str, settings: KafkaSettings, partitions: Sequence[TopicPartition], isolation: IsolationLevel
) -> dict[TopicPartition, _End] | None:
    """The ends from the leaders that this broker reports; None if it does not answer."""
    admin = clients.open_client(AdminClient, clients.admin(replace(settings, bootstrap_servers=server)))
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    by_client_partition = {ClientPartition(*place): place for place in partitions}
    try:
        for topic in {place.topic for place in partitions}:
            admin.list_topics(topic, timeout=_ONE_BROKER_TIMEOUT_S)
        futures = admin.list_offsets(
            dict.fromkeys(by_client_partition, latest),
            isolation_level=isolation,
            request_timeout=_ONE_BROKER_TIMEOUT_S,
        )
        found = {
            by_client_partition[p]: future.result(timeout=_ONE_BROKER_TIMEOUT_S + 1)
            for p, future in futures.items()
        }
    except (KafkaException, TimeoutError) as error:
        clients.LOGGER.info("ends through %s: %s", server, error)
        return None
    if any(answer.offset == OFFSET_INVALID for answer in found.values()):
        return None
    return {
        place: _End(-1 if answer.leader_epoch is None else answer.leader_epoch, int(answer.offset))
        for place, answer in found.items()
    }


def _records(
    consumer: Consumer, journal: TopicPartition, start: int, end: int
) -> Iterator[tuple[int, bytes]]:
    position, ended_at = start, -1  # the next offset; the last end of the journal that was seen
    heard = time.monotonic()
    while position < end:
        messages = consumer.consume(_BATCH, 0) or consumer.consume(1, _POLL_S)
        if messages:
            heard = time.monotonic()
        for message in messages:
            error, offset = message.error(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                _raise(error, journal, position)
            elif offset is None:
                continue
            elif error is not None:
                position, ended_at = max(position, offset), offset
            elif offset >= end:
                return
            else:
                position = offset + 1
                yield offset, message.value() or b""
        if not messages:
            _check_silence(journal, position, end, ended_at, time.monotonic() - heard)


def _check_silence(journal: TopicPartition, position: int, end: int, ended_at: int, silent_s: float) -> None:
    """Limit the wait, because a journal may have lost its tail since the caller requested the bounds."""
    if ended_at == position and silent_s > _SHORT_TIMEOUT_S:
        raise StaleReadError(f"{journal} ends at {position}, below the {end} it was to be read to")
    if silent_s > _SILENCE_TIMEOUT_S:
        raise UnreachableError(f"{journal}: nothing arrives at position {position}, to be read to {end}")


class _OutOfRangeError(Exception):
    """The broker has no record at this position."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def _raise(error: KafkaError, journal: TopicPartition, position: int) -> None:
    of_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    needs = f"Describe on consumer group {JOURNAL_READER}" if of_group else f"Read on topic {journal.topic}"
    failure = partition_failure(error, str(journal), position, needs)
    if failure is None:
        clients.LOGGER.info("%s: %s", journal, error)
    elif isinstance(failure, OutOfRangeError):
        raise _OutOfRangeError(failure.message, position)
    else:
        raise failure
