"""What processing rests on: records in order, none stale after a rewind, none skipped."""

from __future__ import annotations

import random

from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError
from pipeline.ports import Output, PartitionFailure, Record, Source
from tests.contracts.conftest import World, drain, wait_until

COUNT = 3_000


def _filled(world: World, partitions: int = 2, count: int = COUNT) -> list[TopicPartition]:
    """A topic with `count` committed records in each partition, at offsets from 0 on."""
    topic, producer = world.topic("in", partitions), world.producer("filler")
    filled = [TopicPartition(topic, number) for number in range(partitions)]
    producer.begin()
    for partition in filled:
        producer.append(partition, [str(n).encode() for n in range(count)])
    producer.flush()
    producer.commit()
    wait_until(
        lambda: all(world.reader.bounds(p).stable_end == count + 1 for p in filled),
        "the records to be readable",
    )
    return filled


def _poll(source: Source, limit: int = 500) -> list[Record]:
    records: list[Record] = []

    def some() -> bool:
        polled = source.poll(limit, 0.05)
        assert not polled.failures
        records.extend(polled.records)
        return bool(records)

    wait_until(some, "records")
    return records


def _failures(source: Source) -> list[PartitionFailure]:
    found: list[PartitionFailure] = []

    def some() -> bool:
        found.extend(source.poll(100, 0.05).failures)
        return bool(found)

    wait_until(some, "a failure")
    return found


def test_a_partition_is_read_from_its_position_in_order(world: World) -> None:
    """A task starts where its journal says and nowhere else."""
    first, second = _filled(world)
    source = world.source()
    source.assign({first: 10})
    source.assign({second: COUNT - 1})
    records = drain(source, COUNT - 10 + 1)
    assert [r.offset() for r in records if r.partition() == 0] == list(range(10, COUNT))
    assert [r.offset() for r in records if r.partition() == 1] == [COUNT - 1]


def test_after_a_rewind_nothing_fetched_earlier_is_returned(world: World) -> None:
    """After an abort the input starts again at the last entry: a stale record would be processed twice."""
    first, second = _filled(world)
    source, chance = world.source(), random.Random(7)
    source.assign({first: 0, second: 0})
    positions = {0: 0, 1: 0}
    for _ in range(60):
        for record in _poll(source, chance.randint(1, 700)):
            assert record.offset() == positions[record.partition()]
            positions[record.partition()] += 1
        for partition in (first, second):
            if chance.random() < 0.6:
                positions[partition.partition] = chance.randrange(COUNT - 10)
                source.rewind({partition: positions[partition.partition]})
        if not any(position < COUNT for position in positions.values()):
            positions = {0: 0, 1: 0}
            source.rewind({first: 0, second: 0})


def test_a_paused_partition_returns_nothing_and_loses_nothing(world: World) -> None:
    """A pause is how a full queue pushes back; records fetched before it must come later."""
    first, second = _filled(world)
    source = world.source()
    source.assign({first: 0, second: 0})
    seen = [r.offset() for r in _poll(source, 100) if r.partition() == 0]
    source.pause([first])
    others = 0
    while others < 200:
        records = _poll(source, 100)
        assert {r.partition() for r in records} == {1}
        others += len(records)
    source.pause([second])
    source.resume([first])
    while len(seen) < COUNT:
        seen += [r.offset() for r in _poll(source)]
    assert seen == list(range(COUNT))


def test_a_pause_after_a_rewind_resumes_at_the_rewound_place(world: World) -> None:
    """The client remembers how far it once was; resuming there would skip records."""
    (only,) = _filled(world, partitions=1)
    source = world.source()
    source.assign({only: 0})
    drain(source, COUNT)
    source.rewind({only: 5})
    assert [r.offset() for r in _poll(source, 1)] == [5]
    source.pause([only])
    source.resume([only])
    assert _poll(source)[0].offset() == 6


def test_a_paused_partition_stays_paused_through_a_rewind(world: World) -> None:
    """A rewind after an abort does not undo the push-back of a full queue."""
    first, second = _filled(world)
    source = world.source()
    source.assign({first: 0, second: 0})
    source.pause([first])
    source.rewind({first: 3})
    assert {r.partition() for r in drain(source, COUNT)} == {1}
    source.resume([first])
    assert _poll(source)[0].offset() == 3


def test_an_unassigned_partition_is_silent_and_comes_back_unpaused(world: World) -> None:
    """A task that leaves and returns starts like any other."""
    first, second = _filled(world)
    source = world.source()
    source.assign({first: 0, second: 0})
    source.pause([first])
    source.unassign([first, second])
    assert source.poll(100, 0.02).records == []
    source.assign({first: 7})
    assert _poll(source)[0].offset() == 7


def test_a_position_that_is_not_there_any_more_fails_its_partition_only(world: World) -> None:
    """Retention overtook an input: resetting to the start would skip records without a word."""
    first, second = _filled(world)
    world.truncate(first, 100)
    source = world.source()
    source.assign({first: 50})
    (failure,) = _failures(source)
    assert failure.partition == first
    assert isinstance(failure.error, FatalTaskError)
    assert first.topic in str(failure.error)
    source.assign({second: 0})
    assert {r.partition() for r in drain(source, COUNT)} == {1}
    source.rewind({first: 100})
    assert _poll(source)[0].offset() == 100


def test_a_marker_that_is_gone_with_its_records_is_told_from_none_of_them(world: World) -> None:
    """Hence runtime/idle_positions.py: the position behind the last record fails, that behind the marker does not."""
    (only,) = _filled(world, partitions=1, count=5)
    end = world.reader.stable_ends([only])[only]
    assert end == 6
    assert list(world.reader.read(only, 5, end)) == []
    world.truncate(only, end)
    source = world.source()
    source.assign({only: 5})
    (failure,) = _failures(source)
    assert isinstance(failure.error, FatalTaskError)
    source.rewind({only: end})
    producer = world.producer("later")
    producer.begin()
    producer.append(only, [b"later"])
    producer.flush()
    producer.commit()
    assert _poll(source)[0].offset() == end


def test_a_position_beyond_the_end_fails_its_partition(world: World) -> None:
    """A log that lost its tail must not be waited for."""
    (only,) = _filled(world, partitions=1, count=10)
    source = world.source()
    source.assign({only: 1_000})
    assert [f.partition for f in _failures(source)] == [only]


def test_bounds_end_after_the_last_committed_record(world: World) -> None:
    """`latest` must not start in the middle of an open transaction."""
    (only,) = _filled(world, partitions=1, count=10)
    producer = world.producer("open")
    producer.begin()
    producer.append(only, [b"open"])
    producer.flush()
    world.truncate(only, 4)
    assert world.source().bounds(only) == (4, 11)


def test_records_of_an_open_transaction_are_not_returned(world: World) -> None:
    """They may yet be aborted."""
    topic, producer = world.topic("in"), world.producer()
    source = world.source()
    source.assign({TopicPartition(topic, 0): 0})
    producer.begin()
    producer.send([Output(topic, b"k", b"v", 1)])
    producer.flush()
    assert source.poll(10, 0.2).records == []
    producer.commit()
    assert [r.value() for r in drain(source, 1)] == [b"v"]


def test_mirrored_positions_can_be_seen_by_lag_tools(world: World) -> None:
    """Operators look at the consumer group; nothing else ever reads it."""
    first, second = _filled(world, count=5)
    source = world.source()
    assert world.cluster.committed(f"{world.prefix}-group") == {}
    source.assign({first: 0, second: 0})
    source.mirror({first: 3, second: 4})
    wait_until(
        lambda: world.cluster.committed(f"{world.prefix}-group") == {first: 3, second: 4}, "the mirror"
    )
