"""The membership of this process in the group of its app's workers: `KafkaMembers`.

The group coordinator is the failure detector. It removes a member that sends no heartbeat for the session time-out, or
does not poll for the maximum poll interval. Its assignment is ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as ClientPartition

from pipeline.config import KafkaSettings
from pipeline.errors import PipelineError, UnreachableError
from pipeline.kafka import clients
from pipeline.kafka.errors import denied, error_of, is_denied

__all__ = ["KafkaMembers"]

_POLL_S = 0.2
_LEAVE_TIMEOUT_S = 0.5  # during a rebalance the client waits for its end
_DELIVERY_TIMEOUT_S = 6.0


class KafkaMembers:
    """`ports.Members`. Opens its clients on first use."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._opening = threading.Lock()
        self._leaving = threading.Event()
        self._denied: PipelineError | None = None

    def join(self, consumer_group: str, topic: str, client_id: str, progress: Callable[[], object]) -> None:
        """Become a member, and poll from a separate thread while `progress` returns new values."""
        consumer = clients.open_client(Consumer, clients.member(self._settings, consumer_group, client_id))
        consumer.subscribe([topic], on_assign=_assign_nothing, on_revoke=_unassign_all, on_lost=_unassign_all)
        self._consumer = consumer
        self._thread = threading.Thread(
            target=self._poll_until_left,
            args=(consumer, consumer_group, progress),
            name="kafka-member",
            daemon=True,
        )
        self._thread.start()

    def announce(self, topic: str, notes: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the records and wait until they are delivered. Raises UnreachableError, ConfigError."""
        producer = self._opened()
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for key, value in notes:
                producer.produce(topic, value, key, partition=0, on_delivery=delivered)
            left = producer.flush(_DELIVERY_TIMEOUT_S)
        except BufferError as error:
            raise UnreachableError(f"{topic} cannot be written: {error}") from error
        except KafkaException as exception:
            failures, left = [error_of(exception)], 0
        if failures and is_denied(failures[0]):
            raise denied(failures[0], f"{topic} cannot be written", f"Write on topic {topic}")
        if failures or left:
            reason = failures[0].str() if failures else "no answer"
            raise UnreachableError(f"{topic} cannot be written: {reason}")

    def _opened(self) -> Producer:
        with self._opening:
            if self._producer is None:
                self._producer = clients.open_client(Producer, clients.announcer(self._settings))
            return self._producer

    def leave(self) -> None:
        """Leave the group. Does not wait for an unreachable coordinator."""
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(_LEAVE_TIMEOUT_S)

    def problem(self) -> PipelineError | None:
        """Why this process cannot become or stay a member; None if no reason is known."""
        return self._denied

    def _poll_until_left(self, consumer: Consumer, group: str, progress: Callable[[], object]) -> None:
        last: object = None
        while not self._leaving.wait(_POLL_S):
            now = progress()
            if now == last:
                continue  # No progress: without polls, the group removes this member and other workers take its tasks.
            last = now
            try:
                message = consumer.poll(0)
            except KafkaException as error:
                clients.LOGGER.info("membership: %s", error_of(error).str())
                continue
            error_found = message.error() if message is not None else None
            if error_found is not None and is_denied(error_found):
                self._denied = denied(
                    error_found, f"membership in group {group}", f"Read on consumer group {group}"
                )
        try:
            consumer.close()
        except (KafkaException, RuntimeError) as error:
            clients.LOGGER.info("membership ended with %s", error)


def _assign_nothing(consumer: Consumer, _partitions: list[ClientPartition]) -> None:
    """Ignore the assignment: the ring decides. The call is required, or the next rebalance would wait for it."""
    consumer.assign([])


def _unassign_all(consumer: Consumer, _partitions: list[ClientPartition]) -> None:
    consumer.unassign()
