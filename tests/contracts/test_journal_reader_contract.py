"""What restore rests on: the whole journal up to its end, and a word when it is not there any more."""

from __future__ import annotations

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import StaleReadError, TruncatedError, UnreachableError
from pipeline.ports import Output
from tests.contracts.conftest import World


def test_an_empty_journal_has_nothing_to_read(world: World) -> None:
    """The first start of a task."""
    journal = world.journal()
    assert world.reader.bounds(journal) == (0, 0, 0)
    assert list(world.reader.read(journal, 0, 0)) == []


def test_a_read_ends_although_markers_lie_before_the_end(world: World) -> None:
    """The last record before the end is never at end - 1; a wait for that offset would not end."""
    journal, producer = world.journal(), world.producer()
    world.write(producer, journal, b"a")
    for _ in range(3):
        producer.begin()
        producer.append(journal, [b"aborted"])
        producer.flush()
        producer.abort()
    end = world.stable(journal)
    assert end == 8
    assert list(world.reader.read(journal, 0, end)) == [(0, b"a")]
    assert list(world.reader.read(journal, 2, end)) == []


def test_a_read_stays_within_its_range(world: World) -> None:
    """Restore reads from the applied position up to the end it has asked for, whatever came later."""
    journal, producer = world.journal(), world.producer()
    for chunk in (b"a", b"b", b"c", b"d"):
        world.write(producer, journal, chunk)
    world.stable(journal)
    assert list(world.reader.read(journal, 1, 5)) == [(2, b"b"), (4, b"c")]
    assert list(world.reader.read(journal, 4, 4)) == []


def test_a_long_journal_is_read_whole_and_in_order(world: World) -> None:
    """Replay is strictly in offset order and misses nothing."""
    journal, producer = world.journal(), world.producer()
    chunks = [str(n).encode() * 20 for n in range(20_000)]
    world.write(producer, journal, *chunks)
    assert world.chunks(journal) == list(enumerate(chunks))


def test_a_start_below_what_is_left_is_reported(world: World) -> None:
    """Truncation may overtake a restore, which then has to plan again."""
    journal, producer = world.journal(), world.producer()
    for chunk in (b"a", b"b", b"c"):
        world.write(producer, journal, chunk)
    end = world.stable(journal)
    world.truncate(journal, 3)
    assert world.reader.bounds(journal).start == 3
    with pytest.raises(TruncatedError):
        list(world.reader.read(journal, 0, end))
    assert list(world.reader.read(journal, 3, end)) == [(4, b"c")]


def test_an_end_that_is_not_there_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal may lose its tail between asking for its bounds and reading it."""
    monkeypatch.setattr("pipeline.kafka.journal._SHORT_TIMEOUT_S", 0.3)
    journal, producer = world.journal(), world.producer()
    world.write(producer, journal, b"a")
    end = world.stable(journal)
    with pytest.raises(StaleReadError):
        list(world.reader.read(journal, 0, end + 5))
    with pytest.raises(StaleReadError):
        list(world.reader.read(journal, end + 3, end + 5))


def test_reads_may_overlap_and_be_abandoned(world: World) -> None:
    """Tasks restore side by side with one reader."""
    topic, producer = world.topic("journal", partitions=2), world.producer()
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for journal in (first, second):
        world.write(producer, journal, *(f"{journal.partition}-{n}".encode() for n in range(5)))
    ends = {journal: world.stable(journal) for journal in (first, second)}
    one = world.reader.read(first, 0, ends[first])
    assert next(one) == (0, b"0-0")
    assert [chunk for _, chunk in world.reader.read(second, 0, ends[second])][-1] == b"1-4"
    assert next(one) == (1, b"0-1")
    del one
    assert len(list(world.reader.read(first, 0, ends[first]))) == 5


def test_a_journal_that_does_not_exist_is_an_error(world: World) -> None:
    """It must not look empty: an empty journal means a new task."""
    with pytest.raises(UnreachableError):
        world.reader.bounds(TopicPartition(f"{world.prefix}-missing", 0))


def test_an_offset_is_found_by_its_time(world: World) -> None:
    """A reset may begin at a time: the first record from then on, or the end when none is."""
    place, producer = TopicPartition(world.topic("input", retention_ms="-1"), 0), world.producer()
    producer.begin()
    producer.send([Output(place.topic, b"k", b"x", 1_000 * number) for number in range(1, 5)])
    producer.flush()
    producer.commit()
    world.stable(place)
    assert world.reader.offset_at(place, 0) == 0
    assert world.reader.offset_at(place, 2_000) == 1
    assert world.reader.offset_at(place, 2_001) == 2
    # A marker has a time, too: that of its commit.
    assert 4 <= world.reader.offset_at(place, 4_001) <= world.reader.bounds(place).stable_end


def test_many_ends_are_asked_for_at_once(world: World) -> None:
    """A worker looks at the journals of all its idle tasks every few seconds."""
    first, second = TopicPartition(topic := world.topic("journals", 2), 0), TopicPartition(topic, 1)
    producer = world.producer()
    world.write(producer, first, b"a")
    world.stable(first)
    ends = world.reader.stable_ends([first, second])
    assert ends == {first: world.reader.bounds(first).stable_end, second: 0}


def test_many_starts_are_asked_for_at_once(world: World) -> None:
    """A task that starts for the first time needs those of all its inputs."""
    first, second = TopicPartition(topic := world.topic("inputs", 2), 0), TopicPartition(topic, 1)
    producer = world.producer()
    world.write(producer, second, b"a", b"b")
    world.stable(second)
    world.truncate(second, 1)
    assert world.reader.starts([first, second]) == {first: 0, second: 1}
    assert world.reader.starts([]) == {}


def test_ends_are_asked_for_through_every_broker(world: World) -> None:
    """Where nothing of our own can be written, the newest leader's answer is the best there is."""
    first, second = TopicPartition(topic := world.topic("inputs", 2), 0), TopicPartition(topic, 1)
    producer = world.producer()
    world.write(producer, first, b"a", b"b")
    end = world.stable(first)
    assert world.reader.highest_ends([first, second]) == {first: end, second: 0}
    assert world.reader.highest_ends([]) == {}
