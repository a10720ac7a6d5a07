"""A Kafka whose transactional ids expire, as after transactional.id.expiration.ms (7 days) without a commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from pipeline.broker import LocalKafka, launch, node
from tests.support.kafka.harness import Workbench
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.outage, pytest.mark.timeout(300)]

_STATE = "__transaction_state"
FORGETFUL = """
transactional.id.expiration.ms=2000
transaction.remove.expired.transaction.cleanup.interval.ms=500
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A bench with its own Kafka."""
    monkeypatch.setattr(launch, "properties", lambda *facts: node.properties(*facts) + FORGETFUL)
    with LocalKafka(tmp_path / "kafka") as kafka:
        made = Workbench(kafka.bootstrap_servers, "expired", tmp_path, groups=("main",), partitions=1)
        yield made
        made.close()


def test_a_worker_that_stops_after_its_ids_expired_ends_well(bench: Workbench) -> None:
    """An idle worker must stop cleanly: its release entry is its first commit after the expiration."""
    bench.send(20)
    worker = bench.worker()
    bench.wait_for_outputs(worker)
    _until_forgotten(bench)
    assert bench.stop(worker) == 0, bench.log.read_text()
    log = bench.log.read_text()
    assert "INVALID_PRODUCER_ID_MAPPING" in log
    assert "task_failed" not in log
    bench.check()


def _until_forgotten(bench: Workbench) -> None:
    """Wait until the log of the transaction coordinator shows that Kafka has removed the task's id."""
    id_ = f"{bench.prefix}.main.0".encode()
    consumer = Consumer({"bootstrap.servers": bench.servers, "group.id": "looks"})
    with closing(consumer):
        parts = consumer.list_topics(_STATE).topics[_STATE].partitions
        consumer.assign([TopicPartition(_STATE, number, 0) for number in parts])

        def seen() -> bool:
            found = consumer.consume(1_000, 0.1)
            return any((one.key() or b"").endswith(id_) and one.value() is None for one in found)

        wait_until(seen, bench.log.read_text)
