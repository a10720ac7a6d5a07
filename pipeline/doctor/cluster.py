"""Checks of the cluster: brokers, topics, the clock of this machine, and where producers put keys."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from pipeline.api.app import DeclaredApp
from pipeline.api.declared_group import DeclaredGroup
from pipeline.core.names import TopicPartition, workers_topic
from pipeline.core.records import partition_of
from pipeline.core.suggestions import are, counted
from pipeline.doctor.findings import Finding, ok, problem, unknown, warning
from pipeline.ports import Clock, Cluster, JournalReader, Sources, TopicInfo
from pipeline.ports.cluster import Probe
from pipeline.runtime.assignment.roster import TOPIC_CONFIG
from pipeline.runtime.dead_letter_topics import wants_letters
from pipeline.runtime.restore.genesis import (
    JOURNAL_CONFIG,
    JOURNAL_MESSAGE_BYTES,
    LEAST_JOURNAL_MESSAGE_BYTES,
)

__all__ = ["SAMPLES", "check_broker", "check_clock", "check_partitioner", "check_topics"]

SAMPLES = 200  # records of each partition whose keys are compared
SAMPLE_S = 5.0
SHORT_RETENTION_MS = 24 * 3600 * 1000
CLOCK_SKEW_MS = 5_000
_LETTERS_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}


def check_broker(probe: Probe) -> Iterator[Finding]:
    """The brokers answer, know a controller, and are of a supported release."""
    check = "broker"
    facts = probe.facts()
    release = f"Kafka {facts.release}" if facts.release else "an unknown release"
    brokers = counted(facts.brokers, "broker")
    if not facts.supported:
        yield problem(check, f"{brokers} of {release}", "upgrade the brokers to Kafka 3.9 or newer")
    elif facts.controller is None:
        yield problem(
            check,
            f"{brokers} of {release}, and none knows a controller",
            "check the controllers of the cluster",
        )
    else:
        yield ok(check, f"{brokers} of {release}, cluster {facts.cluster_id}")
    if facts.brokers in {1, 2}:
        yield warning(
            check,
            f"{brokers}: a topic cannot have three replicas, so a lost disk loses records and journals",
            "in production, use at least three brokers, replication factor 3 and min.insync.replicas=2",
        )


def check_topics(app: DeclaredApp, cluster: Cluster, probe: Probe) -> Iterator[Finding]:
    """The topics of the app exist, have equally many partitions, leaders and replicas, and keep their records."""
    check = "topics"
    found = cluster.describe(list(app.topics))
    for name in app.topics:
        if name not in found:
            yield problem(
                check,
                f"topic {name} does not exist",
                f"declare it in topics/{name}.yaml and run: pipeline topics apply",
            )
    read = {topic.name for group in app.groups for topic in group.inputs}
    own = _own_topics(app, cluster)
    most = cluster.default_replication()
    bad = [
        *_partition_counts(app, found),
        *(each for name in sorted(read & found.keys()) for each in _input_settings(found[name])),
        *(each for info in found.values() for each in _elections(info)),
        *(each for info, wanted in own for each in _own_settings(info, wanted)),
        *(each for info in [*found.values(), *(i for i, _ in own)] for each in _replicas(info, probe, most)),
    ]
    yield from bad
    if not bad and len(found) == len(app.topics):
        yield ok(
            check,
            f"{len(found)} of the app and {len(own)} of the pipeline: partitions, replicas and settings are right",
        )


def _own_topics(app: DeclaredApp, cluster: Cluster) -> list[tuple[TopicInfo, Mapping[str, str]]]:
    """The topics of the worker that exist, with the settings that they must have."""
    wanted: dict[str, Mapping[str, str]] = {workers_topic(app.name): TOPIC_CONFIG}
    wanted |= {group.id.journal_topic: JOURNAL_CONFIG for group in app.groups if not group.sinks}
    for group in filter(wants_letters, app.groups):
        wanted |= {group.id.dead_letter_topic: _LETTERS_CONFIG, group.id.replays_topic: _LETTERS_CONFIG}
    found = cluster.describe(sorted(wanted))
    return [(info, wanted[name]) for name, info in found.items()]


def _partition_counts(app: DeclaredApp, found: Mapping[str, TopicInfo]) -> Iterator[Finding]:
    for group in app.groups:
        counts = {topic.name: found[topic.name].partitions for topic in group.inputs if topic.name in found}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
            yield problem(
                "topics",
                f"the inputs of group {group.name} must have equally many partitions: {listed}",
                "create the topics alike, or read them in separate groups (runbooks/partitions-changed.md)",
            )


def _input_settings(info: TopicInfo) -> Iterator[Finding]:
    if "compact" in info.config.get("cleanup.policy", "delete"):
        yield warning(
            "topics",
            f"topic {info.name} is compacted: if several records of a key wait, only the last one is processed",
            f"if the app must see each record: pipeline topics set {info.name} cleanup.policy=delete",
        )
    retention = int(info.config.get("retention.ms", "-1"))
    if 0 <= retention < SHORT_RETENTION_MS:
        yield warning(
            "topics",
            f"topic {info.name} keeps records for {retention / 3600000:.1f} h: workers that are down for longer lose "
            "records",
            f"pipeline topics set {info.name} retention.ms={7 * SHORT_RETENTION_MS}",
        )


def _elections(info: TopicInfo) -> Iterator[Finding]:
    if info.config.get("unclean.leader.election.enable") == "true":
        yield warning(
            "topics",
            f"topic {info.name} has unclean.leader.election.enable=true: a replica that is behind may become the "
            "leader, and records that were committed are lost",
            f"pipeline topics set {info.name} unclean.leader.election.enable=false",
        )


def _own_settings(info: TopicInfo, wanted: Mapping[str, str]) -> Iterator[Finding]:
    limit = int(info.config.get("max.message.bytes", LEAST_JOURNAL_MESSAGE_BYTES))
    if wanted is JOURNAL_CONFIG and limit < LEAST_JOURNAL_MESSAGE_BYTES:
        yield problem(
            "topics",
            f"topic {info.name} has max.message.bytes={limit:,}: the entries of a commit do not fit",
            f"pipeline topics set {info.name} max.message.bytes={JOURNAL_MESSAGE_BYTES}",
        )
    for name, value in wanted.items():
        actual = info.config.get(name, value)
        if actual != value:
            yield problem(
                "topics",
                f"topic {info.name} has {name}={actual}; it must be {value}",
                f"pipeline topics set {info.name} {name}={value}",
            )


def _replicas(info: TopicInfo, probe: Probe, most: int) -> Iterator[Finding]:
    """Leaders and replicas against min.insync.replicas, one finding for a topic. `most`: replicas it could have."""
    least = int(info.config.get("min.insync.replicas", "1"))
    health = probe.health(info.name)
    leaderless = [number for number, each in enumerate(health) if each.leader is None]
    if leaderless:
        yield problem(
            "topics", f"topic {info.name} has no leader for partitions {leaderless}", "check the brokers"
        )
        return
    short = [number for number, each in enumerate(health) if each.in_sync < least]
    if short:
        yield problem(
            "topics",
            f"topic {info.name} refuses writes: partitions {short} have fewer replicas in sync than "
            f"min.insync.replicas={least}",
            "check which brokers are down or behind",
        )
    elif info.replication < min(most, 2):
        yield warning(
            "topics",
            f"topic {info.name} has 1 replica: a lost disk of one broker loses its records",
            f"give it {counted(most, 'replica')} with kafka-reassign-partitions.sh",
        )
    elif info.replication >= 3 and least < 2:
        yield warning(
            "topics",
            f"topic {info.name} has {counted(info.replication, 'replica')}, and min.insync.replicas={least}: a "
            "commit may be on one broker only, and is lost with it",
            f"pipeline topics set {info.name} min.insync.replicas=2",
        )
    elif info.replication > 1 and least >= info.replication:
        yield warning(
            "topics",
            f"topic {info.name} refuses writes while any broker is down: min.insync.replicas={least} of "
            f"{counted(info.replication, 'replica')}",
            f"pipeline topics set {info.name} min.insync.replicas={info.replication - 1}",
        )


def check_clock(app: DeclaredApp, cluster: Cluster, probe: Probe, now_ms: int) -> Iterator[Finding]:
    """This machine's clock against the newest timestamps in the topics of the app.

    A record of a topic with message.timestamp.type=LogAppendTime has the time of a broker. Others have the time of
    their producer. A clock that is ahead of all records cannot be told from topics without new records.
    """
    check = "clock"
    topics = cluster.describe([*app.topics, *(g.id.journal_topic for g in app.groups if not g.sinks)])
    ahead: list[str] = []
    by_broker = False
    seen = False
    for info in topics.values():
        places = [TopicPartition(info.name, number) for number in range(info.partitions)]
        newest = max(probe.newest_ms(places).values(), default=None)
        if newest is None:
            continue
        seen = True
        stamped = info.config.get("message.timestamp.type") == "LogAppendTime"
        by_broker |= stamped
        if newest - now_ms > CLOCK_SKEW_MS:
            whose = "a broker" if stamped else "its producer"
            ahead.append(f"{info.name} ({(newest - now_ms) / 1000:,.0f} s, by the clock of {whose})")
    if ahead:
        yield warning(
            check,
            f"topics have records from the future: {', '.join(ahead)}",
            "synchronize the clocks of this machine, the producers and the brokers (chronyc tracking; timedatectl)",
        )
    elif by_broker:
        yield ok(check, "not behind the newest records, some of which have the time of a broker")
    elif seen:
        yield ok(check, "not behind the newest records of the topics, which have the time of their producers")
    else:
        yield unknown(check, "the topics of the app have no records to compare with")


class _Sample(NamedTuple):
    """Records with a key: how many are where the right partitioner, and where CRC32, puts them."""

    keyed: int
    right: int
    crc: int


def check_partitioner(
    app: DeclaredApp, cluster: Cluster, sources: Sources, journals: JournalReader, clock: Clock
) -> Iterator[Finding]:
    """The newest records of each input are in the partitions that the pipeline expects for their keys.

    librdkafka's default partitioner, `consistent_random`, is CRC32; the Java client's is murmur2. With both kinds of
    producers, the records of one key are in two partitions, and so in two tasks with a state each.
    """
    check = "partitioner"
    readers = {topic.name: group for group in reversed(app.groups) for topic in group.inputs}
    topics = cluster.describe(sorted(readers))
    for name, info in sorted(topics.items()):
        if info.partitions == 1:
            yield ok(check, f"topic {name} has one partition")
        else:
            records = _newest(info, readers[name], sources, journals, clock)
            yield _judged(info, _sample(info, records))


def _judged(info: TopicInfo, sample: _Sample) -> Finding:
    check, wrong = "partitioner", sample.keyed - sample.right
    if not sample.keyed:
        return unknown(check, f"topic {info.name} has no records with keys")
    sampled = counted(sample.keyed, "sampled key")
    if not wrong:
        return ok(check, f"topic {info.name}: all of {sampled} {are(sample.keyed)} where murmur2 puts them")
    if sample.crc == sample.keyed or sample.crc > wrong // 2:
        return problem(
            check,
            f"topic {info.name}: {wrong} of {sampled} {are(wrong)} not where murmur2 puts them, and CRC32 "
            "does: a producer uses librdkafka's default partitioner",
            "set partitioner=murmur2_random in that producer (docs/how-to/producing.md); the records of a key are then "
            "in one partition only if the topic is loaded again",
        )
    return warning(
        check,
        f"topic {info.name}: {wrong} of {sampled} {are(wrong)} not where murmur2 puts them",
        "its producers choose partitions themselves, or partitions were added (runbooks/partitions-changed.md). "
        "Records of one key must be in one partition",
    )


def _sample(info: TopicInfo, records: Iterable[tuple[int, bytes]]) -> _Sample:
    keyed = right = crc = 0
    for partition, key in records:
        keyed += 1
        murmur2 = partition_of(key, info.partitions)
        right += murmur2 == partition
        crc += murmur2 != partition and zlib.crc32(key) % info.partitions == partition
    return _Sample(keyed, right, crc)


def _newest(
    info: TopicInfo, group: DeclaredGroup, sources: Sources, journals: JournalReader, clock: Clock
) -> Iterator[tuple[int, bytes]]:
    """(partition, key) of the newest records with a key. The source has the group of the app, and commits nothing."""
    places = [TopicPartition(info.name, number) for number in range(info.partitions)]
    bounds = {place: journals.bounds(place) for place in places}
    left = {place: each.stable_end for place, each in bounds.items() if each.stable_end > each.start}
    if not left:
        return
    with closing(sources.open(group.id.consumer_group)) as source:
        source.assign({place: max(bounds[place].start, end - SAMPLES) for place, end in left.items()})
        deadline_s = clock.monotonic_s() + SAMPLE_S
        most = SAMPLES * len(left)
        while left and most > 0:
            polled = source.poll(SAMPLES, 0.2)
            for failure in polled.failures:
                raise failure.error
            for record in islice(polled.records, most):
                place = TopicPartition(record.topic(), record.partition())
                key = record.key()
                most -= 1
                if record.offset() + 1 >= left.get(place, 0):
                    left.pop(place, None)
                if key is not None:
                    yield place.partition, bytes(key)
            if not polled.records and clock.monotonic_s() >= deadline_s:
                return  # markers at the end of a partition have offsets, too
