"""What the commit protocol rests on: transactions, fences, and nothing lost on the way in."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from unittest import mock

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.config import KafkaSettings
from pipeline.core.names import TopicPartition
from pipeline.core.records import partition_of
from pipeline.errors import AbortableError, FencedError, UnreachableError
from pipeline.kafka.clients import ProducerLimits
from pipeline.kafka.producer import KafkaProducers, KafkaTransactionalProducer
from pipeline.ports import Output, TransactionalClient, kept_timestamp
from tests.contracts.conftest import World, drain
from tests.support.raw_records import RawRecord


def _one_commit(producer: TransactionalClient, journal: TopicPartition, topic: str) -> None:
    producer.begin()
    producer.send([Output(topic, b"k", b"v", 1_000)])
    producer.append(journal, [b"entry"])
    producer.flush()
    producer.commit()


def test_records_keep_key_value_timestamp_and_headers(world: World) -> None:
    """Outputs are what handlers made them: nulls are tombstones, timestamps are event time."""
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    outputs = [
        Output(topic, b"k", b"v", 1_600_000_000_000, [("event-id", b"7"), ("event-id", b""), ("x", b"\x00")]),
        Output(topic, b"k", None, 1_600_000_000_001),
        Output(topic, None, b"", 1_600_000_000_002),
        Output(topic, b"", b"v", 1_600_000_000_003),
    ]
    producer.begin()
    producer.send(outputs)
    producer.append(journal, [b"entry"])
    producer.flush()
    producer.commit()
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    seen = [
        Output(r.topic(), r.key(), r.value(), r.timestamp()[1], r.headers() or ()) for r in drain(source, 4)
    ]
    assert seen == outputs
    assert world.chunks(journal) == [(0, b"entry")]


def test_aborted_records_are_never_read(world: World) -> None:
    """What an aborted commit wrote must not exist for anybody."""
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    producer.begin()
    producer.send([Output(topic, b"k", b"aborted", 1)])
    producer.append(journal, [b"aborted"])
    producer.flush()
    producer.abort()
    _one_commit(producer, journal, topic)
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    assert [r.value() for r in drain(source, 1)] == [b"v"]
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]


def test_init_aborts_what_the_older_owner_had_open_and_fences_it(world: World) -> None:
    """This is the fence: whatever the old owner still tries, its commit must fail."""
    topic, journal, old = world.topic("out"), world.journal(), world.producer()
    old.begin()
    old.send([Output(topic, b"k", b"zombie", 1)])
    old.append(journal, [b"zombie"])
    old.flush()
    new = world.producer()
    with pytest.raises(FencedError):
        old.commit()
    _one_commit(new, journal, topic)
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]


def test_a_fenced_idle_producer_cannot_complete_another_transaction(world: World) -> None:
    """A paused worker that comes back learns of the fence at the latest when it flushes."""
    topic, journal, old = world.topic("out"), world.journal(), world.producer()
    _one_commit(old, journal, topic)
    world.producer()
    with pytest.raises(FencedError):
        _one_commit(old, journal, topic)
    with pytest.raises(FencedError):
        old.commit()
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]


def test_a_fenced_producer_cannot_abort_its_successors_transaction(world: World) -> None:
    """An abort that comes late must not end what the new owner has begun."""
    topic, journal, old = world.topic("out"), world.journal(), world.producer()
    old.begin()
    old.append(journal, [b"zombie"])
    old.flush()
    new = world.producer()
    new.begin()
    new.append(journal, [b"entry"])
    new.flush()
    with pytest.raises(FencedError):
        old.abort()
    new.commit()
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]
    assert topic


def test_the_stable_end_stays_below_the_end_while_a_transaction_is_open(world: World) -> None:
    """From the two ends, restore knows that a transaction is still open."""
    journal, producer = world.journal(), world.producer()
    world.write(producer, journal, b"one")
    settled = world.stable(journal)
    producer.begin()
    producer.append(journal, [b"two"])
    producer.flush()
    bounds = world.reader.bounds(journal)
    assert (bounds.stable_end, bounds.end) == (settled, settled + 1)
    producer.commit()
    assert world.stable(journal) == settled + 2


def test_a_marker_lies_between_two_entries(world: World) -> None:
    """The publisher knows a lost tail by an entry that follows too closely."""
    journal, producer = world.journal(), world.producer()
    offsets = [world.write(producer, journal, b"a", b"b"), world.write(producer, journal, b"c")]
    assert offsets == [0, 3]
    assert world.chunks(journal) == [(0, b"a"), (1, b"b"), (3, b"c")]


def test_flush_returns_the_offset_in_the_journal_appended_to_first(world: World) -> None:
    """A genesis writes to every task's journal in one transaction."""
    topic, producer = world.topic("journal", partitions=2), world.producer()
    first, second = TopicPartition(topic, 1), TopicPartition(topic, 0)
    world.write(producer, first, b"before")
    producer.begin()
    producer.append(first, [b"x", b"y"])
    producer.append(second, [b"z"])
    assert producer.flush() == 2
    producer.commit()
    assert world.chunks(second) == [(0, b"z")]


def test_each_partition_says_where_it_was_appended_to(world: World) -> None:
    """The offset comes from the partition's leader: nothing else says for certain where a journal ends."""
    topic, producer = world.topic("journals", partitions=2, cleanup_policy="compact"), world.producer()
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for at in (0, 3):
        producer.begin()
        producer.append(first, [b"a", b"b"], b"key")
        producer.append(second, [b"c"], b"key")
        producer.flush()
        assert producer.appended_at() == {first: at, second: at // 3 * 2}
        producer.abort()


def test_a_record_too_large_for_its_topic_aborts_and_is_named(world: World) -> None:
    """A broker refuses it after it was enqueued; the commit must not pass without it.

    The broker measures what arrives, so the record must not be one that compresses well.
    """
    topic = world.topic("out", max_message_bytes="20000")
    journal, producer = world.journal(), world.producer()
    producer.begin()
    producer.send([Output(topic, b"k", b"fits", 1), Output(topic, b"k", os.urandom(30_000), 1)])
    producer.append(journal, [b"entry"])
    with pytest.raises(AbortableError, match=topic):
        producer.flush()
    producer.abort()
    # The client may fail its next transaction, too, over the gap in the sequence: after an abort, renew.
    producer.close()
    _one_commit(world.producer(), journal, topic)
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]


def test_a_record_too_large_for_the_client_aborts_and_is_named(world: World) -> None:
    """The client refuses it at once and would let the rest commit."""
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    producer.begin()
    producer.append(journal, [b"entry"])

    def finish() -> None:
        producer.send([Output(topic, b"k", bytes(2_000_000), 1)])
        producer.flush()

    with pytest.raises(AbortableError, match=topic):
        finish()
    producer.abort()
    assert world.chunks(journal) == []


def test_a_record_for_a_topic_that_does_not_exist_never_commits(world: World) -> None:
    """A topic deleted under a running worker must not swallow outputs."""
    journal, producer = world.journal(), world.producer()
    producer.begin()
    producer.send([Output(f"{world.prefix}-missing", b"k", b"v", 1)])
    producer.append(journal, [b"entry"])

    def finish() -> None:
        producer.flush()
        producer.commit()

    with pytest.raises(AbortableError, match="missing"):
        finish()
    producer.abort()
    assert world.chunks(journal) == []


def test_closing_inside_a_transaction_leaves_nothing_behind(world: World) -> None:
    """A worker that stops in the middle hands its task over without having committed."""
    journal, old = world.journal(), world.producer()
    old.begin()
    old.append(journal, [b"open"])
    old.flush()
    old.append(journal, [b"never flushed"])
    old.close()
    old.close()
    new = world.producer()
    world.write(new, journal, b"entry")
    assert [chunk for _, chunk in world.chunks(journal)] == [b"entry"]


def test_keys_are_placed_as_the_partitioner_says(world: World) -> None:
    """Co-partitioned inputs and restored states rest on every writer placing a key alike."""
    topic, producer = world.topic("out", partitions=7), world.producer()
    keys = [b"", b"\xff\x00", *(b"k" * (n % 11) + str(n).encode() for n in range(200))]
    producer.begin()
    producer.send([Output(topic, key, b"v", 1) for key in keys])
    producer.flush()
    producer.commit()
    source = world.source()
    source.assign({TopicPartition(topic, number): 0 for number in range(7)})
    seen = {record.key(): record.partition() for record in drain(source, len(keys))}
    assert seen == {key: partition_of(key, 7) for key in keys}


def test_commits_leave_no_objects_behind(world: World) -> None:
    """200 commits a second that leave 160 bytes each take 100 MB in an hour: a client's exception is never freed."""
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    _one_commit(producer, journal, topic)
    before = _tracked_objects()
    for _ in range(20):
        _one_commit(producer, journal, topic)
    left = {kind: count - before[kind] for kind, count in _tracked_objects().items()}
    assert {kind: count for kind, count in left.items() if count >= 20 and kind.startswith("confluent")} == {}


def _tracked_objects() -> Counter[str]:
    """The objects that the collector knows, by the full names of their types."""
    gc.collect()
    kinds = map(type, gc.get_objects())
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def test_a_transaction_without_records_commits(world: World) -> None:
    """Nothing to do is no error."""
    producer = world.producer()
    producer.begin()
    producer.send([])
    assert producer.flush() == -1
    producer.commit()


@pytest.mark.kafka
def test_a_full_queue_loses_nothing(real_servers: str, world: World) -> None:
    """The client takes fewer records than it is given when its queue is full."""
    settings = KafkaSettings(real_servers, {"queue.buffering.max.messages": "50"})
    if isinstance(world.producers, KafkaProducers):
        world.producers = KafkaProducers(settings)
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    producer.begin()
    producer.send(
        [Output(topic, b"k", str(n).encode(), 1, [("n", b"1")] if n % 2 else ()) for n in range(1000)]
    )
    producer.append(journal, [str(n).encode() for n in range(200)])
    producer.flush()
    producer.commit()
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    assert [r.value() for r in drain(source, 1000)] == [str(n).encode() for n in range(1000)]
    assert [chunk for _, chunk in world.chunks(journal)] == [str(n).encode() for n in range(200)]


def test_an_init_connects_to_a_broker_first() -> None:
    """Before it is connected, the client looks for the coordinator in vain, and again only after 500 ms."""
    client = mock.Mock()
    client.list_topics.side_effect = KafkaException(KafkaError(KafkaError._TRANSPORT))
    KafkaTransactionalProducer(client, "task", 1_000, "input").init()
    assert [call[0] for call in client.method_calls] == ["list_topics", "init_transactions"]
    assert client.list_topics.call_args.args == ("input",)


def test_closing_does_not_wait_for_a_broker_that_is_away(unique_name: str) -> None:
    """A worker that is told to stop while Kafka is down stops."""
    producer = KafkaProducers(KafkaSettings("127.0.0.1:1")).open(unique_name)
    began = time.monotonic()
    producer.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("topics", [{}, {"input": 1_000_000}], ids=["no topic known", "a topic known"])
def test_an_init_without_an_answer_may_be_called_again(
    unique_name: str, topics: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has happened yet, so waiting for Kafka is all there is to do."""
    monkeypatch.setattr("pipeline.kafka.producer._INIT_TIMEOUT_S", 0.2)
    monkeypatch.setattr("pipeline.kafka.producer._CONNECT_TIMEOUT_S", 0.2)
    limits = ProducerLimits(message_bytes=topics)
    producer = KafkaProducers(KafkaSettings("127.0.0.1:1"), limits).open(unique_name)
    for _ in range(2):
        with pytest.raises(UnreachableError, match=unique_name):
            producer.init()
    producer.close()


def test_the_timestamp_0_is_sent_as_the_present_and_1_is_kept(world: World) -> None:
    """Copies that keep timestamps rely on 1 being the nearest to 0 that can be sent."""
    topic, journal, producer = world.topic("out"), world.journal(), world.producer()
    before_ms = time.time_ns() // 1_000_000
    producer.begin()
    producer.send([Output(topic, b"k", b"0", 0), Output(topic, b"k", b"1", 1)])
    producer.append(journal, [b"entry"])
    producer.flush()
    producer.commit()
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    present, epoch = [record.timestamp()[1] for record in drain(source, 2)]
    assert before_ms <= present <= time.time_ns() // 1_000_000
    assert epoch == 1


def test_a_copy_keeps_a_timestamp_of_the_epoch(world: World) -> None:
    """Other clients can write it. A record that has no timestamp gets the present."""
    topic = world.topic("in")
    assert world.write_raw(topic, [RawRecord(b"k", b"v", timestamp_ms=at) for at in (0, 1, -1)]) == 0
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    assert [kept_timestamp(record) for record in drain(source, 3)] == [1, 1, 0]
