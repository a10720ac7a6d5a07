"""Settings of the Kafka clients that depend on what they are for."""

from __future__ import annotations

import pytest

from pipeline import KafkaSettings
from pipeline.kafka.clients import consumer


@pytest.mark.parametrize(("partitions", "wait_ms"), [(0, 100), (400, 100), (1_000, 250), (10_000, 500)])
def test_a_consumer_of_many_partitions_fetches_less_often_while_nothing_arrives(
    partitions: int, wait_ms: int
) -> None:
    """Each request lists all partitions: with a thousand, an empty one costs a broker 9 ms of CPU time."""
    assert consumer(KafkaSettings("127.0.0.1:9"), "group", partitions)["fetch.wait.max.ms"] == str(wait_ms)


def test_a_program_can_choose_how_long_a_fetch_waits() -> None:
    """The number of partitions only changes the default."""
    settings = KafkaSettings("127.0.0.1:9", {"fetch.wait.max.ms": "20"})
    assert consumer(settings, "group", 1_000)["fetch.wait.max.ms"] == "20"
