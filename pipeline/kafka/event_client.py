"""Sends the events of a service to Kafka: `KafkaEventClients` opens `KafkaEventClient`.

The producer is idempotent and keeps the order within a partition. It uses no transactions. The Kafka client holds and
counts the records in flight; its delivery reports run only in the thread that calls `serve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.config import KafkaSettings, ProducerSettings
from pipeline.errors import ConfigError, PipelineError, ProducerClosedError
from pipeline.kafka import clients
from pipeline.kafka.errors import delivery_failure, error_of
from pipeline.ports import Report

__all__ = ["KafkaEventClient", "KafkaEventClients"]


class KafkaEventClients:
    """Opens event clients on one cluster."""

    def __init__(self, settings: KafkaSettings, producer: ProducerSettings) -> None:
        self._settings = settings
        self._producer = producer

    def open(self) -> KafkaEventClient:
        """A client that connects by itself. Raises ConfigError. Does not check that Kafka is reachable."""
        client = KafkaEventClient()
        client.connect(clients.events(self._settings, self._producer, client.note))
        return client


class KafkaEventClient:
    """`ports.EventClient` on one Kafka client."""

    def __init__(self) -> None:
        self._fatal: PipelineError | None = None

    def connect(self, properties: clients.Properties) -> None:
        """Open the Kafka client. Call it once, before any other method."""
        self._producer: Producer = clients.open_client(Producer, properties)

    @property
    def fatal(self) -> PipelineError | None:
        return self._fatal

    def note(self, error: Any) -> None:
        """Receive errors of no single call: lost connections, and the fatal error."""
        clients.global_error(error)
        if error.fatal():
            self._fail(error)

    def enqueue(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        try:
            self._producer.produce(topic, value, key, -1, report, None, timestamp_ms, headers)  # type: ignore[arg-type]
        except BufferError:
            return False
        except KafkaException as exception:
            raise self._refused(error_of(exception), topic) from exception
        return True

    def serve(self, timeout_s: float) -> None:
        """Run delivery reports. The client raises what a report raised, or the fatal error that `note` received."""
        try:
            self._producer.poll(timeout_s)
        except (KafkaException, SystemError) as exception:
            clients.LOGGER.warning("serving delivery reports: %s", exception)

    def failure(self, error: Any, what: str) -> PipelineError:
        return delivery_failure(error, what)

    def purge(self) -> None:
        try:
            self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        except KafkaException as exception:
            clients.LOGGER.warning("purging undelivered events: %s", exception)

    def close(self) -> None:
        """Drop the client, which stops its threads. Its own `close` would wait for an unreachable broker."""
        self.__dict__.pop("_producer", None)

    def _refused(self, error: KafkaError, topic: str) -> Exception:
        if error.code() == KafkaError._FATAL or error.fatal():  # noqa: SLF001
            return self._fail(error)
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return ValueError(f"an event for topic {topic} exceeds the limit of the client: {error.str()}")
        return ConfigError(
            f"the Kafka client refuses an event for topic {topic}: {error.str()} ({error.name()})"
        )

    def _fail(self, error: KafkaError) -> PipelineError:
        if self._fatal is None:
            self._fatal = ProducerClosedError(
                f"the Kafka client has failed permanently: {error.str()} ({error.name()})",
                hint="create a new Producer, and send undelivered events again with the same ids",
            )
        return self._fatal
