"""A broker that the controller has fenced leads its partitions again, with a newer leader epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from pipeline.broker import LocalKafka
from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import PipelineError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.ports import TopicSpec
from tests.support.stalling import stall
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

SESSION_MS = 500
STALLS = 10


@pytest.fixture
def short_session(tmp_path: Path) -> Iterator[LocalKafka]:
    """A separate Kafka with a short session, because the test stalls it."""
    settings = {"broker.session.timeout.ms": str(SESSION_MS), "broker.heartbeat.interval.ms": "100"}
    with LocalKafka(tmp_path, settings=settings) as own:
        yield own


def _fence(kafka: LocalKafka) -> None:
    """Stall the broker until its controller has fenced it, and wait until it leads again."""
    status = kafka.status().nodes[0]
    log = status.log

    def changes() -> list[str]:
        return re.findall(r"Replayed BrokerRegistrationChangeRecord .*fenced=(-?1)\b", log.read_text())

    before = len(changes())
    for _ in range(STALLS):
        stall(status.pid, 3 * SESSION_MS / 1000)
        with suppress(AssertionError):  # its heartbeat was faster than the check of its session
            wait_until(lambda: len(changes()) >= before + 2, log.read_text, 3.0)
            return
    raise AssertionError(log.read_text())


def _created(cluster: KafkaCluster, topic: str) -> bool:
    """Create the topic. A busy machine can delay heartbeats by more than the session, and there is no broker for it."""
    try:
        cluster.create([TopicSpec(topic, 1)])
    except PipelineError:
        return False
    return True


def test_offsets_are_found_after_a_broker_was_fenced(short_session: LocalKafka) -> None:
    """The client kept the old leader epoch for 5 minutes, so `pipeline status` and workers saw no journal."""
    settings, place = KafkaSettings(short_session.bootstrap_servers), TopicPartition("journal", 0)
    with closing(KafkaCluster(settings)) as cluster, closing(KafkaJournalReader(settings)) as reader:
        wait_until(lambda: _created(cluster, place.topic), lambda: "the topic cannot be created")
        assert reader.bounds(place).end == 0
        for _ in range(2):
            _fence(short_session)
            assert reader.bounds(place).end == 0
