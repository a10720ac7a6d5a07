"""A real broker through its life."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.broker import BrokerError, LocalKafka
from pipeline.broker.state import read_state, write_state
from pipeline.broker.wire import view_of

pytestmark = pytest.mark.kafka

_ANSWER_S = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One broker of this module's own. Tests may stop or kill it, and leave it startable."""
    local = LocalKafka(tmp_path_factory.mktemp("broker with space é"))
    local.start()
    yield local
    local.stop()


def _create(servers: str, topic: str, *, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(_ANSWER_S)


def _commit(servers: str, topic: str, values: list[str]) -> None:
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic})
    producer.init_transactions(_ANSWER_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.commit_transaction(_ANSWER_S)


def _read(servers: str, topic: str, count: int) -> list[str]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": topic, "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    try:
        messages = consumer.consume(count, _ANSWER_S)
        return [(message.value() or b"").decode() for message in messages]
    finally:
        consumer.close()


def test_start_of_a_running_broker_changes_nothing(broker: LocalKafka) -> None:
    """`pipeline broker start` may stand at the top of a script."""
    broker.start()
    pid = broker.status().nodes[0].pid
    assert broker.start() is False
    assert broker.status().nodes[0].pid == pid


def test_committed_records_outlive_a_sigkill(broker: LocalKafka, unique_name: str) -> None:
    """The restarted broker has the same address, cluster id and records, so that clients continue.

    The kill often comes between a commit and its markers. Kafka would never write them (KAFKA-20734) if the old
    session were not ended first: without that step, 8 of 12 runs lost the records with Kafka 4.4.0.
    """
    broker.start()
    before = broker.bootstrap_servers, broker.cluster_id
    _create(broker.bootstrap_servers, unique_name)
    _commit(broker.bootstrap_servers, unique_name, ["a", "b"])

    broker.kill()
    assert not broker.status().running
    assert broker.start() is True

    assert (broker.bootstrap_servers, broker.cluster_id) == before
    assert _read(broker.bootstrap_servers, unique_name, 2) == ["a", "b"]


def test_recorded_id_that_another_process_has_now_does_not_hinder_a_start(broker: LocalKafka) -> None:
    """After a reboot, the process ids in the state file can belong to other programs."""
    broker.stop()
    state = read_state(broker.data_dir)
    assert state is not None
    write_state(broker.data_dir, state.with_pids({1: os.getpid()}))

    assert not broker.status().running
    assert broker.start() is True


def test_broker_whose_id_was_never_written_down_is_found(broker: LocalKafka) -> None:
    """The starter may be killed between starting the process and writing its id."""
    broker.start()
    state = read_state(broker.data_dir)
    assert state is not None
    write_state(broker.data_dir, state.with_pids({1: 0}))

    assert broker.status().running
    assert broker.start() is False


def test_running_broker_refuses_what_would_hurt_it(broker: LocalKafka) -> None:
    """Its records are not deleted under it, it does not move, and it does not grow."""
    broker.start()
    with pytest.raises(BrokerError, match="it must be stopped"):
        broker.start(fresh=True)
    with pytest.raises(BrokerError, match="runs already, on port"):
        LocalKafka(broker.data_dir, port=9092).start()
    with pytest.raises(BrokerError, match="formatted with 1 node"):
        LocalKafka(broker.data_dir, nodes=3).start()
    assert broker.status().running


def test_taken_port_is_refused_before_anything_is_started(broker: LocalKafka, tmp_path: Path) -> None:
    """The error names the broker that has the port."""
    broker.start()
    port = broker.status().nodes[0].port
    with pytest.raises(BrokerError, match=f"port {port} is taken by the local broker in") as caught:
        LocalKafka(tmp_path / "second", port=port).start()
    assert str(broker.data_dir) in str(caught.value)


def test_broker_that_dies_at_its_start_is_explained_by_its_log(broker: LocalKafka) -> None:
    """Here its storage is another node's; the log's last lines say so, and no process is left."""
    broker.stop()
    meta = broker.data_dir / "node-1" / "data" / "meta.properties"
    right = meta.read_text()
    meta.write_text(right.replace("node.id=1", "node.id=7"))
    try:
        with pytest.raises(BrokerError, match=r"(?s)ended while it started.*node ?id") as caught:
            broker.start()
        assert "sessions.log" in (caught.value.hint or "")  # that of its controller, which is started first
        assert broker.status().nodes[0].pid == 0
    finally:
        meta.write_text(right)


def test_records_of_another_cluster_are_not_served_as_this_ones(broker: LocalKafka) -> None:
    """A directory put together from two backups: Kafka itself would start on it."""
    broker.stop()
    meta = broker.data_dir / "node-1" / "data" / "meta.properties"
    right = meta.read_text()
    meta.write_text(right.replace(broker.cluster_id, "AAAAAAAAAAAAAAAAAAAAAA"))
    try:
        with pytest.raises(BrokerError, match="serves the cluster AAAAAAAAAAAAAAAAAAAAAA"):
            broker.start()
        assert broker.status().nodes[0].pid == 0
    finally:
        meta.write_text(right)


@pytest.mark.outage
@pytest.mark.timeout(600)  # twelve nodes start, on a machine that may be busy
def test_three_nodes_keep_what_was_committed_when_all_are_killed(tmp_path: Path, unique_name: str) -> None:
    """After the restart, only the logs hold the decision; the broker must still write the markers."""
    with LocalKafka(tmp_path, nodes=3) as cluster:
        servers = cluster.bootstrap_servers
        _create(servers, unique_name, replicas=3)
        for number in range(3):
            _commit(servers, unique_name, [str(number)])
            for node in (1, 2, 3):
                cluster.kill(node)
            assert cluster.start() is True
            assert _read(servers, unique_name, number + 1) == [str(n) for n in range(number + 1)]


def test_three_nodes_keep_what_was_committed_when_one_is_killed(tmp_path: Path, unique_name: str) -> None:
    """With three, one may be lost: the others serve, and it comes back among them."""
    with LocalKafka(tmp_path, nodes=3) as cluster:
        servers = cluster.bootstrap_servers
        _create(servers, unique_name, replicas=3)
        _commit(servers, unique_name, ["a"])
        cluster.kill(2)
        assert not cluster.status().running
        assert _read(servers, unique_name, 1) == ["a"]

        assert cluster.start() is True
        assert cluster.status().running
    assert all(view_of(node.port) is None for node in cluster.status().nodes)
