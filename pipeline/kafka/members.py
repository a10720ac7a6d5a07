"""This process among the workers of its app: `KafkaMembers`.

The coordinator of the Kafka group is the failure detector: it drops a member that has sent no heartbeat for the
session time-out, or has not polled for the poll interval. What it assigns is ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.errors import UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import error_of

__all__ = ["KafkaMembers"]

_POLL_S = 0.2
_LEAVE_TIMEOUT_S = 0.5  # in the middle of a rebalance the client waits for its end
_DELIVERY_TIMEOUT_S = 6.0


class KafkaMembers:
    """`ports.Members`. Opens its clients when they are first needed."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._leaving = threading.Event()

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a member, and poll from a thread of its own for as long as `progress` changes."""
        consumer = clients.open_client(Consumer, clients.member(self._settings, consumer_group, client_id))
        consumer.subscribe([topic], on_assign=_take_nothing, on_revoke=_give_up, on_lost=_give_up)
        self._consumer = consumer
        self._thread = threading.Thread(
            target=self._stay, args=(consumer, progress), name="kafka-member", daemon=True
        )
        self._thread.start()

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the records and wait until they are delivered. Raises UnreachableError."""
        if self._producer is None:
            self._producer = clients.open_client(Producer, clients.announcer(self._settings))
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for key, value in notes:
                self._producer.produce(topic, value, key, partition=0, on_delivery=delivered)
            left = self._producer.flush(_DELIVERY_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise UnreachableError(f"{topic} cannot be written: {error}") from error
        if failures or left:
            reason = failures[0].str() if failures else "no answer"
            raise UnreachableError(f"{topic} cannot be written: {reason}")

    def leave(self) -> None:
        """Leave the group; a coordinator that is away is not waited for."""
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(_LEAVE_TIMEOUT_S)

    def _stay(self, consumer: Consumer, progress: Callable[[], object]) -> None:
        last: object = None
        while not self._leaving.wait(_POLL_S):
            now = progress()
            if now == last:
                continue  # nothing moves: let the group miss us, others can do the work
            last = now
            try:
                consumer.poll(0)
            except KafkaException as error:
                clients.LOGGER.info("membership: %s", error_of(error).str())
        try:
            consumer.close()
        except (KafkaException, RuntimeError) as error:
            clients.LOGGER.info("membership ended with %s", error)


def _take_nothing(consumer: Consumer, _partitions: list[ClientPartition]) -> None:
    """Whatever is assigned: the ring decides. An answer is due, or the next rebalance would wait for it in vain."""
    consumer.assign([])


def _give_up(consumer: Consumer, _partitions: list[ClientPartition]) -> None:
    consumer.unassign()
