"""`pipeline doctor` on a cluster in memory: brokers, topics, partitioner, clock."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pipeline import App, Context, Event
from pipeline.api.app import DeclaredApp
from pipeline.app import declared_app
from pipeline.core.names import TopicPartition
from pipeline.core.permissions import Operation
from pipeline.doctor.cluster import check_broker, check_clock, check_partitioner, check_topics
from pipeline.doctor.findings import Finding, Level, run_check
from pipeline.errors import UnreachableError
from pipeline.ports import Output, TopicSpec
from pipeline.ports.cluster import BrokerFacts, PartitionHealth
from pipeline.runtime.restore.genesis import JOURNAL_CONFIG
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader, MemorySources
from pipeline.testing.system import ManualClock

NOW_MS = 1_700_000_000_000
WEEK_MS = 7 * 24 * 3600 * 1000


@dataclass
class FakeProbe:
    """`ports.Probe` with answers that a test sets."""

    broker: BrokerFacts = field(default_factory=lambda: BrokerFacts("abc", 3, 1, "4.0 or newer"))
    replicas: PartitionHealth = field(default_factory=lambda: PartitionHealth(1, 3, 3))
    newest: Mapping[str, int] = field(default_factory=dict)

    def facts(self) -> BrokerFacts:
        return self.broker

    def health(self, topic: str) -> list[PartitionHealth]:
        return [self.replicas]

    def topic_operations(self, topic: str) -> frozenset[Operation] | None:
        return frozenset(Operation)

    def group_operations(self, group: str) -> frozenset[Operation] | None:
        return frozenset(Operation)

    def newest_ms(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self.newest[place.topic] for place in partitions if place.topic in self.newest}


def _nothing(_event: Event[str, int], _ctx: Context) -> None:
    """Handle nothing."""


def orders() -> DeclaredApp:
    app = App("shop")
    placed = app.topic("orders", key=str, value=int)
    app.topic("totals", key=str, value=int)

    @app.handler(placed, on_error="dead_letter")
    def add(event: Event[str, int], ctx: Context) -> None: ...

    return declared_app(app)


@pytest.fixture
def broker() -> MemoryBroker:
    """A cluster with the topics of the app."""
    made = MemoryBroker(defaults={"min.insync.replicas": "2", "retention.ms": str(WEEK_MS)})
    for name in ("orders", "totals"):
        made.create(TopicSpec(name, 4, replication=3))
    return made


def said(findings: Iterable[Finding], level: Level) -> str:
    return "\n".join(f"{each.text} -> {each.hint}" for each in findings if each.level is level)


def topics(broker: MemoryBroker, probe: FakeProbe | None = None) -> list[Finding]:
    return list(check_topics(orders(), MemoryCluster(broker), probe or FakeProbe()))


def test_a_healthy_cluster_is_fine(broker: MemoryBroker) -> None:
    """A false alarm teaches people to ignore the command."""
    found = [*check_broker(FakeProbe()), *topics(broker)]
    assert {finding.level for finding in found} == {Level.OK}


@pytest.mark.parametrize(
    ("facts", "level", "text"),
    [
        (BrokerFacts("abc", 3, 1, "3.8 or older", supported=False), Level.PROBLEM, "3.8 or older"),
        (BrokerFacts("abc", 3, None, "3.9"), Level.PROBLEM, "none knows a controller"),
        (BrokerFacts("abc", 1, 1, "3.9"), Level.WARNING, "cannot have three replicas"),
    ],
)
def test_a_broker_that_is_not_fit_is_reported(facts: BrokerFacts, level: Level, text: str) -> None:
    """A cluster like this loses records, or refuses what a worker asks."""
    assert text in said(check_broker(FakeProbe(facts)), level)


def test_an_unreachable_broker_is_a_problem() -> None:
    """The most frequent cause of a failed start."""

    class Away(FakeProbe):
        def facts(self) -> BrokerFacts:
            raise UnreachableError("no Kafka at kafka:9092", hint="check it")

    assert said(run_check("broker", lambda: check_broker(Away())), Level.PROBLEM) == (
        "no Kafka at kafka:9092 -> check it"
    )


def test_a_missing_topic_is_a_problem_with_the_command(broker: MemoryBroker) -> None:
    """A worker would refuse to start."""
    broker.delete("totals")
    assert "topic totals does not exist -> declare it" in said(topics(broker), Level.PROBLEM)


def test_inputs_with_different_partition_counts_are_a_problem() -> None:
    """Keys of the two inputs would be in different tasks."""
    app = App("shop")
    two = [app.topic(name, key=str, value=int) for name in ("orders", "payments")]
    for topic in two:
        app.handler(topic)(_nothing)
    broker = MemoryBroker()
    broker.create(TopicSpec("orders", 4))
    broker.create(TopicSpec("payments", 2))
    found = list(check_topics(declared_app(app), MemoryCluster(broker), FakeProbe()))
    assert "orders has 4, payments has 2" in said(found, Level.PROBLEM)


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("cleanup.policy", "compact", "topic orders is compacted"),
        ("retention.ms", "3600000", "topic orders keeps records for 1.0 h"),
        ("min.insync.replicas", "1", "a commit may be on one broker only"),
        ("min.insync.replicas", "3", "topic orders refuses writes while any broker is down"),
        ("unclean.leader.election.enable", "true", "records that were committed are lost"),
    ],
)
def test_a_risky_setting_of_an_input_is_a_warning(
    setting: str, value: str, text: str, broker: MemoryBroker
) -> None:
    """Records are lost later, long after the setting was made."""
    broker.configure("orders", {setting: value})
    assert text in said(topics(broker), Level.WARNING)


def test_a_journal_with_a_wrong_setting_is_a_problem_with_the_command(broker: MemoryBroker) -> None:
    """A compacted journal has lost entries."""
    broker.create(
        TopicSpec("shop.main.journal", 4, config={"cleanup.policy": "compact", "retention.ms": "-1"})
    )
    found = said(topics(broker), Level.PROBLEM)
    assert "pipeline topics set shop.main.journal cleanup.policy=delete" in found


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        ("shop.main.journal", "max.message.bytes", "1048588"),
        ("shop.main.journal", "unclean.leader.election.enable", "false"),
        ("shop.main.dead-letters", "retention.ms", "-1"),
        ("shop.main.replays", "retention.bytes", "-1"),
        ("pipeline.workers.shop", "cleanup.policy", "compact"),
    ],
)
def test_each_topic_of_a_worker_has_the_settings_that_it_needs(
    topic: str, setting: str, value: str, broker: MemoryBroker
) -> None:
    """An administrator's script that sets a retention on all topics removes entries, letters or owners."""
    right = {
        "pipeline.workers.shop": {"cleanup.policy": "compact"},
        "shop.main.journal": {**JOURNAL_CONFIG, "max.message.bytes": "1048588"},
    }.get(topic, {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"})
    broker.create(TopicSpec(topic, 4, replication=3, config=right))
    assert {finding.level for finding in topics(broker)} == {Level.OK}
    wrong = {"compact": "delete", "false": "true"}.get(value, "3600")
    broker.configure(topic, {setting: wrong})
    assert f"pipeline topics set {topic} {setting}={value}" in said(topics(broker), Level.PROBLEM)


def test_a_topic_with_one_replica_of_three_brokers_is_a_warning(broker: MemoryBroker) -> None:
    """The default of many clusters; it is noticed when a disk is lost, with the journal on it."""
    broker.create(TopicSpec("shop.main.journal", 4, replication=1, config=dict(JOURNAL_CONFIG)))
    assert "shop.main.journal has 1 replica" not in said(topics(broker), Level.WARNING)

    class Three(MemoryCluster):
        def brokers(self) -> int:
            return 3

    found = check_topics(orders(), Three(broker), FakeProbe())
    assert "shop.main.journal has 1 replica: a lost disk" in said(found, Level.WARNING)


@pytest.mark.parametrize(
    ("replicas", "text"),
    [
        (PartitionHealth(None, 3, 0), "topic orders has no leader for partitions [0]"),
        (PartitionHealth(1, 3, 1), "topic orders refuses writes: partitions [0] have fewer replicas in sync"),
    ],
)
def test_partitions_that_cannot_be_used_are_a_problem(
    replicas: PartitionHealth, text: str, broker: MemoryBroker
) -> None:
    """Every commit would be retried until it is repaired."""
    assert text in said(topics(broker, FakeProbe(replicas=replicas)), Level.PROBLEM)


def partitioner(broker: MemoryBroker) -> list[Finding]:
    reader = MemoryJournalReader(broker)
    return list(
        check_partitioner(orders(), MemoryCluster(broker), MemorySources(broker), reader, ManualClock())
    )


KEYS = [f"customer-{number}".encode() for number in range(60)]


def test_keys_that_crc32_placed_are_a_problem(broker: MemoryBroker) -> None:
    """librdkafka's default: then one key has records, and state, in two tasks."""
    for key in KEYS:
        broker.produce(Output("orders", key, b"1", NOW_MS), partition=zlib.crc32(key) % 4)
    found = said(partitioner(broker), Level.PROBLEM)
    assert "of 60 sampled keys are not where murmur2 puts them, and CRC32 does" in found
    assert "partitioner=murmur2_random" in found


def test_a_mixture_of_both_partitioners_is_a_problem(broker: MemoryBroker) -> None:
    """One new producer among old ones is the usual way in which it happens."""
    for number, key in enumerate(KEYS):
        at = zlib.crc32(key) % 4 if number % 4 == 0 else None
        broker.produce(Output("orders", key, b"1", NOW_MS), partition=at)
    assert "CRC32 does" in said(partitioner(broker), Level.PROBLEM)


def test_keys_in_other_places_are_a_warning(broker: MemoryBroker) -> None:
    """Added partitions, or a producer that chooses partitions itself."""
    for key in KEYS:
        broker.produce(Output("orders", key, b"1", NOW_MS), partition=0)
    assert "not where murmur2 puts them" in said(partitioner(broker), Level.WARNING)


def test_keys_in_their_places_are_fine(broker: MemoryBroker) -> None:
    """As the pipeline, the Java client and murmur2_random put them."""
    for key in KEYS:
        broker.produce(Output("orders", key, b"1", NOW_MS))
    (found,) = partitioner(broker)
    assert found.text == "topic orders: all of 60 sampled keys are where murmur2 puts them"


def test_a_topic_without_keys_is_not_checked(broker: MemoryBroker) -> None:
    """An ok would claim what was not seen."""
    broker.produce(Output("orders", None, b"1", NOW_MS), partition=0)
    (found,) = partitioner(broker)
    assert found.level is Level.UNKNOWN


def test_a_topic_that_two_groups_read_is_sampled_once() -> None:
    """Each sample may take seconds, and the same line twice looks like two problems."""
    app = App("shop")
    placed = app.topic("orders", key=str, value=int)
    for group in (app.group("first"), app.group("second")):
        group.handler(placed)(_nothing)
    broker = MemoryBroker()
    broker.create(TopicSpec("orders", 4))
    reader, sources = MemoryJournalReader(broker), MemorySources(broker)
    found = check_partitioner(declared_app(app), MemoryCluster(broker), sources, reader, ManualClock())
    assert len(list(found)) == 1


def clock(broker: MemoryBroker, newest: Mapping[str, int]) -> list[Finding]:
    return list(check_clock(orders(), MemoryCluster(broker), FakeProbe(newest=newest), NOW_MS))


def test_records_from_the_future_are_a_warning(broker: MemoryBroker) -> None:
    """A clock that is behind gives outputs wrong times, and brokers may refuse them."""
    broker.configure("totals", {"message.timestamp.type": "LogAppendTime"})
    found = said(clock(broker, {"orders": NOW_MS - 5, "totals": NOW_MS + 60_000}), Level.WARNING)
    assert "totals (60 s, by the clock of a broker)" in found
    assert "orders" not in found


def test_a_clock_without_records_is_not_checked(broker: MemoryBroker) -> None:
    """An ok would claim what was not seen."""
    assert [finding.level for finding in clock(broker, {})] == [Level.UNKNOWN]
    assert [finding.level for finding in clock(broker, {"orders": NOW_MS})] == [Level.OK]
