"""A real Apache Kafka on this machine for development, demonstrations and tests. Needs no installed Java or Docker."""

from __future__ import annotations

from pipeline.broker.directories import cache_dir, default_data_dir
from pipeline.broker.local import LocalKafka, NodeStatus, Status
from pipeline.broker.reporting import BrokerError, Report, StepProgress

__all__ = [
    "BrokerError",
    "LocalKafka",
    "NodeStatus",
    "Report",
    "Status",
    "StepProgress",
    "cache_dir",
    "default_data_dir",
]
