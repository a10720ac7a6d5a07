"""Reading a topic to its exact end, on a broker in memory."""

from __future__ import annotations

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError, UnreachableError
from pipeline.ops.reading import last_committed, read_topic
from pipeline.ports import Output, TopicSpec
from pipeline.testing.memory_broker import MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader, MemoryProducers, MemorySources
from pipeline.testing.system import ManualClock

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


def _broker(*steps: tuple[int, bool]) -> MemoryBroker:
    """Transactions of so many records on partition 0, committed or aborted."""
    broker = MemoryBroker()
    broker.create(TopicSpec("t", 2))
    producer = MemoryProducers(broker).open("id")
    producer.init()
    for count, commit in steps:
        producer.begin()
        producer.append(P0, [b"x"] * count)
        producer.flush()
        if commit:
            producer.commit()
        else:
            producer.abort()
    return broker


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        ((), None),
        (((3, True),), 2),
        (((3, False),), None),
        (((1, True), (500, False)), 0),
        (((2, True), (1, False), (2, True), (1, False)), 6),
    ],
)
def test_the_last_committed_record_is_found_behind_markers_and_aborted_ones(
    steps: tuple[tuple[int, bool], ...], last: int | None
) -> None:
    """Waiting for a record that is not there would hang; stopping one early would lose one."""
    reader = MemoryJournalReader(_broker(*steps))
    bounds = reader.bounds(P0)
    assert last_committed(reader, P0, bounds.start, bounds.stable_end) == last


def test_records_written_after_the_end_was_looked_up_are_left_out() -> None:
    """A command that ends must end on a busy topic, too."""
    broker = _broker((3, True))
    broker.produce(Output("t", None, b"later", 0), partition=0)
    source = MemorySources(broker).open("g")
    found = list(read_topic(source, ManualClock(), {P0: 0, P1: 0}, {P0: 2}))
    assert [record.offset() for record in found] == [0, 1, 2]


def test_a_partition_that_fails_and_one_that_falls_silent_are_errors() -> None:
    """Output that just stops would be taken for the whole."""
    broker = _broker((3, True))
    broker.truncate(P0, 2)
    with pytest.raises(FatalTaskError):
        list(read_topic(MemorySources(broker).open("g"), ManualClock(), {P0: 0}, {P0: 2}))

    class Ticking(ManualClock):
        def monotonic_s(self) -> float:
            self.advance(1)
            return super().monotonic_s()

    with pytest.raises(UnreachableError, match="no record arrived"):
        list(read_topic(MemorySources(broker).open("g"), Ticking(), {P0: 2}, {P0: 99}))
