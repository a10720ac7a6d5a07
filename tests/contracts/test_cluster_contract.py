"""What the topology checks rest on: topics as the cluster has them, by identity and not only by name."""

from __future__ import annotations

import socket

import pytest

from pipeline.config import KafkaSettings
from pipeline.errors import ConfigError, UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec

from .conftest import World


def test_a_created_topic_is_described_as_asked(world: World) -> None:
    """The journal's configuration is checked at every start."""
    topic = world.topic("a", partitions=3, cleanup_policy="compact", max_message_bytes="12345")
    described = world.cluster.describe([topic, f"{world.prefix}-missing"])
    assert set(described) == {topic}
    info = described[topic]
    assert (info.name, info.partitions) == (topic, 3)
    assert info.replication >= 1
    assert info.topic_id
    assert info.config["cleanup.policy"] == "compact"
    assert info.config["max.message.bytes"] == "12345"


def test_creating_a_topic_again_changes_nothing(world: World) -> None:
    """Two workers start at the same moment."""
    topic = world.topic("a", partitions=3)
    before = world.cluster.describe([topic])
    world.cluster.create([TopicSpec(topic, 5), TopicSpec(f"{topic}-b", 1)])
    after = world.cluster.describe([topic, f"{topic}-b"])
    assert after[topic] == before[topic]
    assert after[f"{topic}-b"].partitions == 1


def test_a_topic_created_again_has_another_id(world: World) -> None:
    """Consuming goes on without an error; only the id tells that the records are others."""
    topic = world.topic("a")
    before = world.cluster.describe([topic])[topic].topic_id
    world.cluster.delete([topic])
    assert world.cluster.describe([topic]) == {}
    world.cluster.create([TopicSpec(topic, 1)])
    assert world.cluster.describe([topic])[topic].topic_id != before


def test_deleting_what_is_not_there_is_no_error(world: World) -> None:
    """A reset may be repeated after it was interrupted."""
    world.cluster.delete([f"{world.prefix}-missing"])


def test_the_cluster_has_one_id(world: World) -> None:
    """It is part of every applied position."""
    assert world.cluster.cluster_id()
    assert world.cluster.cluster_id() == world.cluster.cluster_id()


def test_a_group_that_has_committed_nothing_has_no_positions(world: World) -> None:
    """An unknown consumer group is an answer."""
    assert world.cluster.committed(f"{world.prefix}-nobody") == {}


def test_a_journal_is_truncated_below_an_offset(world: World) -> None:
    """The record at the offset stays: its chain value is what a checkpoint is compared with."""
    journal, producer = world.journal(), world.producer()
    for chunk in (b"a", b"b", b"c"):
        world.write(producer, journal, chunk)
    world.stable(journal)
    world.cluster.truncate(journal, 2)
    assert world.reader.bounds(journal).start == 2
    assert world.chunks(journal) == [(2, b"b"), (4, b"c")]
    world.cluster.truncate(journal, 1)  # a worker that is late
    world.cluster.truncate(journal, 2)
    assert world.chunks(journal) == [(2, b"b"), (4, b"c")]


@pytest.mark.kafka
def test_a_refused_configuration_is_named(real_servers: str, unique_name: str) -> None:
    """The user declared it; the message has to say which topic and why."""
    cluster = KafkaCluster(KafkaSettings(real_servers))
    with pytest.raises(ConfigError, match=unique_name):
        cluster.create([TopicSpec(unique_name, 1, config={"cleanup.policy": "nonsense"})])


def test_a_cluster_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting against a stopped Kafka says so, with the address."""
    monkeypatch.setattr("pipeline.kafka.cluster._REQUEST_TIMEOUT_S", 0.3)
    cluster = KafkaCluster(KafkaSettings("127.0.0.1:1"))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        cluster.cluster_id()


def test_a_listener_that_is_no_kafka_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port forwarded to nowhere takes connections, and answers nothing."""
    monkeypatch.setattr("pipeline.kafka.cluster._REQUEST_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port}"):
            KafkaCluster(KafkaSettings(f"127.0.0.1:{port}")).cluster_id()


def test_a_property_that_the_client_refuses_is_a_configuration_error() -> None:
    """A typing error in [kafka] must name itself."""
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        KafkaCluster(KafkaSettings("127.0.0.1:1", {"no.such.property": "1"}))
