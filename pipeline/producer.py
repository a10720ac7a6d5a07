"""The producers that users import, on the real Kafka client."""

from __future__ import annotations

import structlog

from pipeline.config import Settings, load_settings, refuse_owned
from pipeline.kafka.events import KafkaEventClients
from pipeline.producing.producer import EventProducer

__all__ = ["Producer"]


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
