"""The producers that users import, on the real Kafka client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import structlog

from pipeline.config import Settings, load_settings, refuse_owned
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.event_client import KafkaEventClients
from pipeline.kafka.producer import KafkaProducers
from pipeline.producing.producer import EventProducer
from pipeline.producing.transactions import RETRY_BACKOFF_MS, TransactionalSender

__all__ = ["Producer", "TransactionalProducer"]


class Producer(EventProducer):
    """Sends events to Kafka. Threads and coroutines may share it. Close it, or use it in a `with` or `async with`.

    Opening it does not connect: if Kafka is unreachable, the events wait, up to `delivery_timeout_s`.

    Args:
        settings: Default: the settings of the environment and of `pipeline.toml`, as `load_settings` reads them.

    Raises:
        ConfigError: A setting is wrong.

    Example:
        ```python
        with Producer() as producer:
            producer.send(orders, "customer-7", Order(5), id="order-5")
        ```
    """

    def __init__(self, settings: Settings | None = None) -> None:
        chosen = settings if settings is not None else load_settings()
        refuse_owned(chosen.kafka.properties)
        clients = KafkaEventClients(chosen.kafka, chosen.producer)
        super().__init__(clients, chosen.producer, structlog.get_logger("pipeline"))


class TransactionalProducer(TransactionalSender):
    """Sends transactions to Kafka: groups of events that readers of committed records see completely or not at all.

    Close it, or use it in a `with`.

    Args:
        transactional_id: A name for each running instance of the service, the same after a restart: a new producer
            ends the transaction that a killed one has left open. Letters, digits, `_` and `-`.
        settings: As for `Producer`.

    Raises:
        ConfigError: A setting or the transactional id is wrong.

    Example:
        ```python
        with TransactionalProducer("orders-1") as producer:
            with producer.transaction() as transaction:
                transaction.send(orders, "customer-7", Order(5), id="order-5")
                transaction.send(stock, "shoe", Taken(1), id="order-5")
        ```
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
