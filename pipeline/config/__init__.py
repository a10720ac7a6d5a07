"""The settings of one process, and how they are read. `settings` has the classes, `loading` reads them."""

from __future__ import annotations

from pipeline.config.addresses import host_and_port
from pipeline.config.client_properties import OWNED_PROPERTIES, is_secret, refuse_owned
from pipeline.config.loading import load_settings
from pipeline.config.settings import (
    COMMAND_STARTUP_WAIT_S,
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_TOPICS_DIR,
    MAX_PORT,
    WORKER_STARTUP_WAIT_S,
    DrillSettings,
    HttpSettings,
    KafkaSettings,
    OtelSettings,
    ProducerSettings,
    Settings,
    WorkerSettings,
)

__all__ = [
    "COMMAND_STARTUP_WAIT_S",
    "DEFAULT_BOOTSTRAP_SERVERS",
    "DEFAULT_TOPICS_DIR",
    "MAX_PORT",
    "OWNED_PROPERTIES",
    "WORKER_STARTUP_WAIT_S",
    "DrillSettings",
    "HttpSettings",
    "KafkaSettings",
    "OtelSettings",
    "ProducerSettings",
    "Settings",
    "WorkerSettings",
    "host_and_port",
    "is_secret",
    "load_settings",
    "refuse_owned",
]
