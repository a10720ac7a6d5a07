"""Lets a new Kafka create its internal topics before a test asks for them: `elect_coordinators`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from pipeline.config import KafkaSettings
from pipeline.errors import UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.producer import KafkaProducers
from tests.support.waiting import wait_until

__all__ = ["elect_coordinators"]

_NAME = "test.first"
_WITHIN_S = 180.0


def elect_coordinators(servers: str) -> None:
    """Wait until the cluster has coordinators of consumer groups and of transactions.

    The first request about each of them creates an internal topic of 50 partitions. On a busy machine, that takes
    longer than the time-outs of this request.
    """
    settings = KafkaSettings(servers)
    with (
        closing(KafkaCluster(settings)) as cluster,
        closing(KafkaProducers(settings).open(_NAME)) as producer,
    ):
        for ask in (lambda: cluster.member_ids(_NAME), producer.init):
            wait_until(_answered(ask), lambda: f"{servers} elects no coordinator", _WITHIN_S)


def _answered(ask: Callable[[], object]) -> Callable[[], bool]:
    def answered() -> bool:
        try:
            ask()
        except UnreachableError:
            return False
        return True

    return answered
