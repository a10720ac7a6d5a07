"""What the Kafka of this release does with records of brokers that other releases created."""

from __future__ import annotations

import tarfile
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from pipeline.broker import BrokerError, LocalKafka
from pipeline.broker.install import shipped_lock
from pipeline.broker.ports import choose_ports
from pipeline.broker.state import BrokerState, read_state, write_state

# One node, stopped cleanly. The topic `orders` keeps records of any age; the transactional id `old-writer` wrote 3.
_FORMATTED = Path(__file__).parent / "kafka-4.3.1.tar.xz"
_ANSWER_S = 60.0


def _unpacked(tmp_path: Path) -> BrokerState:
    with tarfile.open(_FORMATTED) as archive:
        archive.extractall(tmp_path, filter="data")
    state = read_state(tmp_path)
    assert state is not None
    return state


@pytest.mark.kafka
def test_records_that_kafka_4_3_wrote_are_served(tmp_path: Path) -> None:
    """An upgrade of the package must not cost a developer the records of the local broker."""
    before = _unpacked(tmp_path)
    assert before.kafka_version == "4.3.1"
    tmp_path.chmod(0o755)  # as that release created it

    with LocalKafka(tmp_path, port=choose_ports(1)[0]) as kafka:
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        assert kafka.cluster_id == before.cluster_id
        assert kafka.status().kafka_version == shipped_lock().kafka_version
        _commit(kafka.bootstrap_servers, "v3")
        assert _read(kafka.bootstrap_servers, 4) == ["v0", "v1", "v2", "v3"]

    after = read_state(tmp_path)
    assert after is not None
    assert (after.kafka_version, after.run_by) == ("4.3.1", shipped_lock().kafka_version)


@pytest.mark.kafka
def test_a_refused_start_leaves_the_records_of_a_newer_kafka(tmp_path: Path) -> None:
    """The release that created them can still serve them."""
    newer = msgspec.structs.replace(_unpacked(tmp_path), kafka_version="99.1.0")
    write_state(tmp_path, newer)

    with pytest.raises(BrokerError, match=r"formatted by Kafka 99\.1\.0"):
        LocalKafka(tmp_path).start()
    assert read_state(tmp_path) == newer


def _commit(servers: str, value: str) -> None:
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "old-writer"})
    producer.init_transactions(_ANSWER_S)
    producer.begin_transaction()
    producer.produce("orders", value)
    producer.commit_transaction(_ANSWER_S)


def _read(servers: str, count: int) -> list[str]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "new", "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition("orders", 0, OFFSET_BEGINNING)])
    try:
        return [(message.value() or b"").decode() for message in consumer.consume(count, _ANSWER_S)]
    finally:
        consumer.close()
