"""Reads the inputs of one handler group: `KafkaSources` opens `KafkaSource`.

The caller decides all positions: reading starts at the given positions, and they are never reset automatically. Records
are the client's message objects, without a copy. One thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import InvariantError
from pipeline.kafka import clients
from pipeline.kafka.errors import denied, error_of, is_denied, partition_failure, request_failure
from pipeline.ports import PartitionFailure, Polled

__all__ = ["KafkaSource", "KafkaSources"]

_REQUEST_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 2.0
_LEARN_TIMEOUT_S = 1.0


class KafkaSources:
    """Opens inputs on one cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    def open(self, consumer_group: str, partitions: int = 0) -> KafkaSource:
        """A source without partitions. `partitions`: it reads as many at most. Raises ConfigError."""
        properties = clients.consumer(self._settings, consumer_group, partitions)
        properties["on_commit"] = partial(_mirrored, consumer_group)
        return KafkaSource(clients.open_client(Consumer, properties))


class KafkaSource:
    """`ports.Source` on one consumer."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._assigned: dict[TopicPartition, int] = {}  # the last requested position of each partition
        self._paused: set[TopicPartition] = set()
        self._known: set[str] = set()  # topics whose leaders are in the client's cache

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Add partitions; reading starts at the given positions."""
        again = self._assigned.keys() & positions.keys()
        if again:
            raise InvariantError(f"assigned twice: {sorted(again)}")
        if positions:
            self._load_leaders({partition.topic for partition in positions})
            self._consumer.incremental_assign(_with_offsets(positions))
            self._assigned.update(positions)

    def _load_leaders(self, topics: set[str]) -> None:
        """Load the leaders into the client's cache. Otherwise the client finds them only in a scan once a second."""
        for topic in topics - self._known:
            try:
                self._consumer.list_topics(topic, timeout=_LEARN_TIMEOUT_S)
            except KafkaException as error:
                clients.LOGGER.info("leaders of %s: %s", topic, error_of(error).str())
            else:
                self._known.add(topic)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        gone = [p for p in partitions if p in self._assigned]
        self.resume(gone)  # the client would keep the pause for a later assignment
        if gone:
            self._consumer.incremental_unassign(_plain(gone))
        for partition in gone:
            del self._assigned[partition]

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Up to `max_records` records: at once if any are available, else as soon as the first one arrives.

        `consume(n, t)` waits for n records or the whole time-out. So first take the records that are available, then
        wait for one record, then take the others of the same fetch, which arrive in the queue together.
        """
        consume = self._consumer.consume
        messages = consume(max_records, 0)
        if not messages and timeout_s > 0:
            messages = consume(1, timeout_s)
            if messages and max_records > 1:
                messages += consume(max_records - 1, 0)
        if any([m.error() is not None for m in messages]):  # noqa: C419 (a list is twice as fast)
            return self._split(messages)
        return Polled(messages)

    def rewind(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions again from these positions. Records that were fetched before are discarded.

        Removing a partition increases its version in the client, which drops the queued records of older versions.
        """
        unknown = positions.keys() - self._assigned.keys()
        if unknown:
            raise InvariantError(f"rewound without being assigned: {sorted(unknown)}")
        paused = self._paused & positions.keys()
        self.unassign(positions)
        self.assign(positions)
        self.pause(paused)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        added = [p for p in partitions if p in self._assigned and p not in self._paused]
        if added:
            self._consumer.pause(_plain(added))
            self._paused.update(added)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        ended = [p for p in partitions if p in self._paused]
        if ended:
            self._consumer.resume(_plain(ended))
            self._paused.difference_update(ended)

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """(first offset, position after the last committed record), requested from the broker."""
        try:
            answer = self._consumer.get_watermark_offsets(
                ClientPartition(*partition), timeout=_REQUEST_TIMEOUT_S, cached=False
            )
        except KafkaException as error:
            needs = f"Describe on topic {partition.topic}"
            raise request_failure(error_of(error), f"bounds of {partition}", needs) from error
        low, high = answer
        return int(low), int(high)

    def mirror(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit positions for lag monitoring. Best effort. Never waits, never raises."""
        if not positions:
            return
        try:
            self._consumer.commit(offsets=_with_offsets(positions), asynchronous=True)
        except (KafkaException, RuntimeError) as error:
            clients.LOGGER.info("positions were not mirrored: %s", error)

    def close(self) -> None:
        """Wait briefly for the last mirrored positions, then leave the client to its closing thread.

        The client's `close` waits for them as long as brokers are unreachable, and has no time-out.
        """
        closing = threading.Thread(target=self._close, name="kafka-source-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)

    def _close(self) -> None:
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            clients.LOGGER.info("consumer closed with %s", error)

    def _split(self, messages: list[Message]) -> Polled:
        """Separate records from failures. Errors from which the client recovers are only logged."""
        records: list[Message] = []
        failures: list[PartitionFailure] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
                continue
            topic, number = message.topic(), message.partition()
            if topic is None or number is None or number < 0:
                clients.LOGGER.info("consumer: %s", error)
                continue
            partition = TopicPartition(topic, number)
            if partition not in self._assigned:
                continue
            failure = partition_failure(
                error,
                str(partition),
                _position_of(message, self._assigned[partition]),
                needs=f"Read on topic {topic}",
            )
            if failure is None:
                clients.LOGGER.info("%s: %s", partition, error)
            else:
                self._known.discard(topic)  # its leader may have changed
                failures.append(PartitionFailure(partition, failure))
        return Polled(records, failures)


def _position_of(message: Message, started_at: int) -> int:
    offset = message.offset()
    return offset if offset is not None and offset >= 0 else started_at


def _with_offsets(positions: Mapping[TopicPartition, int]) -> list[ClientPartition]:
    return [ClientPartition(topic, number, offset) for (topic, number), offset in positions.items()]


def _plain(partitions: Iterable[TopicPartition]) -> list[ClientPartition]:
    return [ClientPartition(topic, number) for topic, number in partitions]


def _mirrored(consumer_group: str, error: KafkaError | None, _partitions: list[ClientPartition]) -> None:
    """Log why positions were not written. The worker continues: the journal has them, and only lag tools miss them."""
    if error is None:
        return
    if is_denied(error):
        needs = f"Read on consumer group {consumer_group}"
        clients.LOGGER.warning("%s", denied(error, "writing positions for lag tools", needs))
    else:
        clients.LOGGER.info("positions were not mirrored: %s", error)
