"""The producers that users import, on the real Kafka client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import structlog

from pipeline.config import Settings, load_settings, refuse_owned
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.events import KafkaEventClients
from pipeline.kafka.producer import KafkaProducers
from pipeline.producing.producer import EventProducer
from pipeline.producing.transactions import RETRY_BACKOFF_MS, TransactionalSender

__all__ = ["Producer", "TransactionalProducer"]


class Producer(EventProducer):
    """Sends events to Kafka; threads and coroutines may share it. Close it, or use it in a `with`.

    `settings`: default, what PIPELINE_* and pipeline.toml say. Opening it asks Kafka nothing: a Kafka that is
    away is waited for by the events. Raises ConfigError.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        chosen = settings if settings is not None else load_settings()
        refuse_owned(chosen.kafka.properties)
        clients = KafkaEventClients(chosen.kafka, chosen.producer)
        super().__init__(clients, chosen.producer, structlog.get_logger("pipeline"))


class TransactionalProducer(TransactionalSender):
    """Sends batches of events to Kafka, each whole or not at all. It has no `send`: only its transactions have.

    transactional_id: one for each running instance of the service, the same again after a restart, so that what
    a killed one left open ends at once. `settings`: as for `Producer`. Raises ConfigError.
    """

    def __init__(self, transactional_id: str, settings: Settings | None = None) -> None:
        chosen = settings if settings is not None else load_settings()
        refuse_owned(chosen.kafka.properties)
        limits = ProducerLimits(
            transaction_timeout_ms=chosen.producer.transaction_timeout_ms,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            message_bytes={"": chosen.producer.max_event_bytes},
        )
        super().__init__(KafkaProducers(chosen.kafka, limits), transactional_id, chosen.producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
