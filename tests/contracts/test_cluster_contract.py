"""What the topology checks rest on: topics as the cluster has them, by identity and not only by name."""

from __future__ import annotations

import socket

import pytest

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.errors import ConfigError, UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.contracts.conftest import World, wait_until


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


def test_a_topic_that_is_named_twice_is_described_once(world: World) -> None:
    """A topic may be an input and an output of one group, and the caller lists both."""
    topic = world.topic("a")
    assert world.cluster.describe([topic, topic]) == world.cluster.describe([topic])


def test_creating_a_topic_again_changes_nothing(world: World) -> None:
    """Two workers start at the same moment."""
    topic = world.topic("a", partitions=3)
    before = world.cluster.describe([topic])
    world.cluster.create([TopicSpec(topic, 5), TopicSpec(f"{topic}-b", 1)])
    after = world.cluster.describe([topic, f"{topic}-b"])
    assert after[topic] == before[topic]
    assert after[f"{topic}-b"].partitions == 1


def test_a_topic_created_again_has_another_id(world: World) -> None:
    """Consumers continue without an error; only the topic id shows that the records differ."""
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


def test_a_consumer_group_is_forgotten_with_its_positions(world: World) -> None:
    """They are a trace by which a group that has lost its journal is known."""
    topic = world.topic("a")
    group = f"{world.prefix}-group"
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    source.mirror({TopicPartition(topic, 0): 0})
    source.close()
    world.opened.clear()
    wait_until(lambda: bool(world.cluster.committed(group)), "the positions")
    world.cluster.forget(group)
    assert world.cluster.committed(group) == {}
    world.cluster.forget(group)


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
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", 0.3)
    cluster = KafkaCluster(KafkaSettings("127.0.0.1:1"))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        cluster.cluster_id()


def test_a_listener_that_is_no_kafka_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port forwarded to nowhere takes connections, and answers nothing."""
    monkeypatch.setattr("pipeline.kafka.admin.REQUEST_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port}"):
            KafkaCluster(KafkaSettings(f"127.0.0.1:{port}")).cluster_id()


def test_a_property_that_the_client_refuses_is_a_configuration_error() -> None:
    """A typing error in [kafka] must name itself."""
    with pytest.raises(ConfigError, match=r"no\.such\.property"):
        KafkaCluster(KafkaSettings("127.0.0.1:1", {"no.such.property": "1"}))


def test_settings_are_set_and_returned_to_their_defaults(world: World) -> None:
    """A declaration that names a setting sets it; one that no longer does takes it back; the rest stays."""
    default = world.cluster.describe([world.topic("plain")])[f"{world.prefix}-plain"].config["segment.bytes"]
    topic = world.topic("a", cleanup_policy="compact", segment_bytes="2000000")
    world.cluster.configure(topic, {"retention.ms": "60000", "segment.bytes": None})
    info = world.cluster.describe([topic])[topic]
    assert info.config["retention.ms"] == "60000"
    assert info.config["segment.bytes"] == default
    assert info.overridden == {"cleanup.policy", "retention.ms"}
    world.cluster.configure(topic, {"segment.bytes": None, "retention.ms": "60000"})  # again
    assert world.cluster.describe([topic])[topic] == info


def test_a_topic_has_the_settings_of_its_kafka_release(world: World) -> None:
    """A setting that the fake lacks would be refused in a unit test and taken by a cluster."""
    topic = world.topic("a")
    found = world.cluster.describe([topic])[topic].config
    # The fixture sets the first; the other depends on the number of nodes.
    assert found == {
        **world.defaults,
        "retention.ms": "-1",
        "min.insync.replicas": found["min.insync.replicas"],
    }


def test_a_setting_may_be_empty(world: World) -> None:
    """Without a cleanup policy Kafka keeps everything: nothing is not the same as the default."""
    topic = world.topic("a", cleanup_policy="compact,delete")
    world.cluster.configure(topic, {"cleanup.policy": ""})
    info = world.cluster.describe([topic])[topic]
    assert info.config["cleanup.policy"] == ""
    assert "cleanup.policy" in info.overridden


@pytest.mark.parametrize(("name", "value"), [("retentoin.ms", "5"), ("retention.ms", "a week")])
def test_of_settings_of_which_one_is_refused_none_is_set(world: World, name: str, value: str) -> None:
    """A topic half as declared would be like no declaration at all."""
    topic = world.topic("a")
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        world.cluster.configure(topic, {"segment.bytes": "2000000", name: value})
    assert world.cluster.describe([topic])[topic].overridden == {"retention.ms"}
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        world.cluster.create([TopicSpec(f"{topic}-b", 1, config={name: value})])


def test_partitions_are_added_and_never_taken_away(world: World) -> None:
    """Kafka knows no way back."""
    topic = world.topic("a", partitions=2)
    before = world.cluster.describe([topic])[topic]
    world.cluster.grow(topic, 5)
    after = world.cluster.describe([topic])[topic]
    assert after.partitions == 5
    assert after.topic_id == before.topic_id
    for count in (5, 3):
        with pytest.raises(ConfigError, match=topic):
            world.cluster.grow(topic, count)
    assert world.cluster.describe([topic])[topic].partitions == 5


def test_what_is_only_checked_changes_nothing(world: World) -> None:
    """The brokers are asked before the first of many changes is made."""
    topic, new = world.topic("a"), f"{world.prefix}-new"
    before = world.cluster.describe([topic])
    world.cluster.configure(topic, {"segment.bytes": "2000000"}, check_only=True)
    world.cluster.grow(topic, 7, check_only=True)
    world.cluster.create([TopicSpec(new, 1)], check_only=True)
    assert world.cluster.describe([topic, new]) == before
    with pytest.raises(ConfigError):
        world.cluster.configure(topic, {"no.such.setting": "1"}, check_only=True)
    with pytest.raises(ConfigError):
        world.cluster.grow(topic, 1, check_only=True)
    with pytest.raises(ConfigError):
        world.cluster.create([TopicSpec(new, 1, config={"no.such.setting": "1"})], check_only=True)


def test_a_topic_that_is_gone_cannot_be_changed(world: World) -> None:
    """The topic was deleted after the plan was made; that is not an outage."""
    gone = f"{world.prefix}-gone"
    with pytest.raises(ConfigError, match=gone):
        world.cluster.configure(gone, {"retention.ms": "5"})
    with pytest.raises(ConfigError, match=gone):
        world.cluster.grow(gone, 5)


def test_the_brokers_are_counted(world: World) -> None:
    """A worker opens connections to each of them, and must know whether it may open so many."""
    assert world.cluster.brokers() == 1


def test_the_default_replication_is_what_a_topic_gets(world: World) -> None:
    """An export leaves it out, so that the same file serves one broker and three."""
    topic = world.topic("a")
    assert world.cluster.describe([topic])[topic].replication == world.cluster.default_replication()


def test_most_brokers_describe_a_topic_once(world: World) -> None:
    """A verdict about a topic asks each broker for itself."""
    topic = world.topic("one")
    assert list(world.cluster.describe_by_most([topic, topic, f"{topic}-missing"])) == [topic]
