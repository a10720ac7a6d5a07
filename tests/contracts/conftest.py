"""Both implementations of the ports: every contract test runs on the fakes and on the real thing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from pipeline.config import KafkaSettings, ProducerSettings
from pipeline.core.names import TopicPartition
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.event_client import KafkaEventClients
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.kafka.members import KafkaMembers
from pipeline.kafka.producer import KafkaProducers
from pipeline.kafka.source import KafkaSources
from pipeline.ports import (
    Cluster,
    EventClients,
    JournalReader,
    Members,
    Output,
    Record,
    Source,
    Sources,
    Stores,
    SystemClock,
    TopicSpec,
    TransactionalClient,
    TransactionalClients,
)
from pipeline.rocksdb.rocks import RocksStores
from pipeline.testing import MemoryBroker, MemoryEventClients
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemoryProducers, MemorySources
from pipeline.testing.memory_log import DEFAULTS
from pipeline.testing.memory_members import MemoryMembers
from pipeline.testing.memory_store import MemoryStores
from tests.support.raw_records import RawRecord, write_raw

DEADLINE_S = 60.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.005)


_LONGEST = str(2**63 - 1)
_NOT_IN_3_9 = {
    "errors.deadletterqueue.group.enable",
    "max.decompressed.message.bytes",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
}
_ONLY_IN_3_9 = {
    "message.downconversion.enable": "true",
    "message.format.version": "3.0-IV1",
    "message.timestamp.after.max.ms": _LONGEST,
    "message.timestamp.difference.max.ms": _LONGEST,
}


def defaults_of(release: str) -> Mapping[str, str]:
    """The topic settings of a release and their defaults; of that of `pipeline broker` for an empty string."""
    if release != "3.9":
        return DEFAULTS
    return {name: value for name, value in DEFAULTS.items() if name not in _NOT_IN_3_9} | _ONLY_IN_3_9


@dataclass
class World:
    """A cluster behind the ports, and names that no other test uses."""

    prefix: str
    cluster: Cluster
    sources: Sources
    producers: TransactionalClients
    reader: JournalReader
    truncate: Callable[[TopicPartition, int], None]
    members: Callable[[], Members]
    events: EventClients
    write_raw: Callable[[str, Sequence[RawRecord]], int]  # to partition 0; the broker's error code
    defaults: Mapping[str, str] = field(default_factory=lambda: DEFAULTS)  # of topic settings
    opened: list[Source | TransactionalClient] = field(default_factory=list)

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic that keeps records of any age, unless `retention_ms` is given."""
        full = f"{self.prefix}-{name}"
        settings = {"retention.ms": "-1", **{key.replace("_", "."): value for key, value in config.items()}}
        self.cluster.create([TopicSpec(full, partitions, config=settings)])
        return full

    def journal(self) -> TopicPartition:
        return TopicPartition(self.topic("journal"), 0)

    def producer(self, name: str = "task") -> TransactionalClient:
        """A producer that owns its id."""
        producer = self.producers.open(f"{self.prefix}-{name}")
        self.opened.append(producer)
        producer.init()
        return producer

    def source(self) -> Source:
        source = self.sources.open(f"{self.prefix}-group")
        self.opened.append(source)
        return source

    def write(self, producer: TransactionalClient, journal: TopicPartition, *chunks: bytes) -> int:
        """Commit one entry; its offset."""
        producer.begin()
        producer.append(journal, chunks)
        offset = producer.flush()
        producer.commit()
        return offset

    def stable(self, journal: TopicPartition) -> int:
        """The end, once every transaction's marker has arrived."""
        wait_until(lambda: len(set(self.reader.bounds(journal)[1:])) == 1, f"the open end of {journal}")
        return self.reader.bounds(journal).end

    def chunks(self, journal: TopicPartition) -> list[tuple[int, bytes]]:
        end = self.stable(journal)
        return list(self.reader.read(journal, self.reader.bounds(journal).start, end))

    def close(self) -> None:
        for each in self.opened:
            each.close()
        self.reader.close()
        self.cluster.close()


def drain(source: Source, count: int) -> list[Record]:
    """Poll until `count` records have arrived."""
    records: list[Record] = []

    def enough() -> bool:
        polled = source.poll(1000, 0.05)
        assert not polled.failures
        records.extend(polled.records)
        return len(records) >= count

    wait_until(enough, f"{count} records")
    return records


def _memory_world(prefix: str) -> World:
    broker = MemoryBroker()
    return World(
        prefix,
        MemoryCluster(broker),
        MemorySources(broker),
        MemoryProducers(broker),
        MemoryJournalReader(broker),
        broker.truncate,
        lambda: MemoryMembers(broker, SystemClock()),
        MemoryEventClients(broker),
        lambda topic, records: _written(broker, topic, records),
    )


def _written(broker: MemoryBroker, topic: str, records: Sequence[RawRecord]) -> int:
    now_ms = time.time_ns() // 1_000_000
    for key, value, headers, timestamp_ms in records:
        raw: Any = headers
        when_ms = now_ms if timestamp_ms is None else timestamp_ms
        broker.produce(Output(topic, key, value, when_ms, raw), partition=0)
    return 0


def _kafka_world(prefix: str, servers: str) -> World:
    settings = KafkaSettings(servers, {"topic.metadata.propagation.max.ms": "300"})

    def truncate(partition: TopicPartition, before: int) -> None:
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.delete_records([ClientPartition(*partition, before)]).values():
            future.result(timeout=DEADLINE_S)

    return World(
        prefix,
        KafkaCluster(settings),
        KafkaSources(settings),
        KafkaProducers(settings),
        KafkaJournalReader(settings),
        truncate,
        lambda: KafkaMembers(settings),
        KafkaEventClients(settings, ProducerSettings()),
        lambda topic, records: write_raw(servers, topic, records),
    )


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest, unique_name: str) -> Iterator[World]:
    """A cluster: the fake one, then the real one."""
    if request.param == "memory":
        made = _memory_world(unique_name)
    else:
        made = _kafka_world(unique_name, request.getfixturevalue("kafka").bootstrap_servers)
        made.defaults = defaults_of(str(request.config.getoption("--kafka-version")))
    yield made
    made.close()


@pytest.fixture
def kafka_world(unique_name: str, real_servers: str) -> Iterator[World]:
    """The real cluster, for what no fake can show."""
    made = _kafka_world(unique_name, real_servers)
    yield made
    made.close()


@pytest.fixture
def real_servers(request: pytest.FixtureRequest) -> str:
    """The address of the real broker, for what no fake can show."""
    servers: str = request.getfixturevalue("kafka").bootstrap_servers
    return servers


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Local states: the fake ones, then the real ones."""
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path, 8 << 20)
