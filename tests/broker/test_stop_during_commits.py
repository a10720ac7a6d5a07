"""A stop or a stall of the local broker while clients commit: no acknowledged commit may be lost (KAFKA-20734)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

from pipeline.broker import LocalKafka
from pipeline.broker.launch import LOG
from pipeline.broker.state import node_dir
from pipeline.config import KafkaSettings
from pipeline.kafka.cluster import KafkaCluster
from pipeline.ports import TopicSpec
from tests.support.stalling import stall
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kills, pytest.mark.timeout(900)]

PARTITIONS = 12
COMMITS = 300  # before the stop
_ANSWER_S = 30.0


class _Committer(threading.Thread):
    """Commits one record after the other until it is stopped. `confirmed`: the commits that succeeded."""

    def __init__(self, servers: str, topic: str, partition: int) -> None:
        super().__init__(daemon=True)
        self.settings = {
            "bootstrap.servers": servers,
            "transactional.id": f"{topic}-{partition}",
            "linger.ms": 0,
        }
        self.topic = topic
        self.partition = partition
        self.confirmed: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        producer = Producer({**self.settings, "log_level": 0})
        try:
            producer.init_transactions(_ANSWER_S)
            while not self.stopping.is_set():
                value = f"{self.partition}-{len(self.confirmed)}"
                producer.begin_transaction()
                producer.produce(self.topic, value, partition=self.partition)
                producer.commit_transaction(_ANSWER_S)
                self.confirmed.append(value)
        except KafkaException:
            producer.purge()

    def abort_once(self) -> None:
        """What the next owner of the id does: it fences, and its first transaction is aborted."""
        producer = Producer({**self.settings, "log_level": 0})
        producer.init_transactions(_ANSWER_S)
        producer.begin_transaction()
        producer.produce(self.topic, "aborted", partition=self.partition)
        producer.flush(_ANSWER_S)
        producer.abort_transaction(_ANSWER_S)


def _restart(kafka: LocalKafka) -> None:
    kafka.stop()
    kafka.start()


def _stall(kafka: LocalKafka, times: int, seconds: float) -> None:
    """The process stands still for longer than its session with the controller."""
    pid = kafka.status().nodes[0].pid
    for _ in range(times):
        stall(pid, seconds)
        time.sleep(1.0)  # commits between two stalls


def _lost(
    directory: Path, topic: str, settings: Mapping[str, str], disturb: Callable[[LocalKafka], None] = _restart
) -> set[str]:
    """The confirmed commits that a reader does not find after `disturb` has met the broker."""
    with LocalKafka(directory, settings=settings) as kafka:
        servers = kafka.bootstrap_servers
        cluster = KafkaCluster(KafkaSettings(servers))
        cluster.create([TopicSpec(topic, PARTITIONS)])
        cluster.close()
        committers = [_Committer(servers, topic, partition) for partition in range(PARTITIONS)]
        for committer in committers:
            committer.start()
        wait_until(
            lambda: sum(len(committer.confirmed) for committer in committers) >= COMMITS,
            lambda: "too few commits",
            300.0,
        )
        disturb(kafka)  # they commit until it does not answer
        for committer in committers:
            committer.stopping.set()  # the commit that is in progress may be completed now
        for committer in committers:
            committer.join(3 * _ANSWER_S)
            assert not committer.is_alive()
        for committer in committers:
            committer.abort_once()
        confirmed = {value for committer in committers for value in committer.confirmed}
        return confirmed - _read(servers, topic)


def _skipped(directory: Path) -> int:
    """How often the coordinator has skipped the markers of a transaction, as the broker's log says."""
    return (node_dir(directory, 1) / LOG).read_text().count("Couldn't find leader endpoint")


def _read(servers: str, topic: str) -> set[str]:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": topic,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    found: set[str] = set()
    ended: set[int | None] = set()
    try:
        while len(ended) < PARTITIONS:
            message = consumer.poll(_ANSWER_S)
            assert message is not None, f"{PARTITIONS - len(ended)} partitions have no readable end"
            if message.error():
                ended.add(message.partition())
            else:
                found.add((message.value() or b"").decode())
    finally:
        consumer.close()
    return found


def test_a_stop_during_commits_loses_no_confirmed_commit(tmp_path: Path, unique_name: str) -> None:
    """Developers stop the broker while their workers run, and must find their results after its next start."""
    assert _lost(tmp_path, unique_name, {}) == set()


def test_a_controlled_shutdown_during_commits_loses_some(tmp_path: Path, unique_name: str) -> None:
    """The reason why it is switched off. If this fails, Kafka has corrected it, and the setting can go."""
    settings = {"controlled.shutdown.enable": "true"}
    assert any(_lost(tmp_path / str(n), unique_name, settings) for n in range(5))


def test_a_stall_during_commits_skips_no_marker(tmp_path: Path, unique_name: str) -> None:
    """A machine that is busy or asleep stalls the broker, and its controller must not take the leaders away."""
    stalls = partial(_stall, times=2, seconds=6.0)
    assert _lost(tmp_path, unique_name, {}, stalls) == set()
    assert _skipped(tmp_path) == 0


def test_a_stall_that_ends_the_session_skips_some(tmp_path: Path, unique_name: str) -> None:
    """The reason for the long session. If this fails, Kafka has corrected it, and the setting can go."""
    settings = {"broker.session.timeout.ms": "1000"}
    _lost(tmp_path, unique_name, settings, partial(_stall, times=25, seconds=1.6))
    assert _skipped(tmp_path) > 0
