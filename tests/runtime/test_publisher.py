"""The publisher alone: what only shows with the clock in hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog

from pipeline.config import WorkerSettings
from pipeline.core.journal import NO_CHAIN, Entry, Identity, Kind, encode_entry
from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError
from pipeline.ports import Output, TopicSpec
from pipeline.runtime.publisher import Commit
from pipeline.runtime.restore import Restored, restore
from pipeline.runtime.world import NoSteps, World
from pipeline.testing import (
    InlineExecutor,
    ManualClock,
    MemoryBroker,
    MemoryCluster,
    MemoryJournalReader,
    MemoryMembers,
    MemoryProducers,
    MemorySources,
    MemoryStores,
    SeededRandom,
)
from pipeline.testing.memory_clients import MemoryProducer

TASK = TaskId("app", "main", 0)
IDENTITY = Identity("memory-cluster", "murmur2_random", {}, {}, "")


class SlowCommits(MemoryProducers):
    """Producers whose next commits take as long as they are told."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        super().__init__(broker)
        self._clock = clock
        self.seconds: list[float] = []
        self.opened: list[MemoryProducer] = []

    def open(self, transactional_id: str) -> MemoryProducer:
        producer = super().open(transactional_id)
        commit = producer.commit

        def slow() -> None:
            commit()
            self._clock.advance(self.seconds.pop(0) if self.seconds else 0.001)

        producer.commit = slow  # type: ignore[method-assign]
        self.opened.append(producer)
        return producer


def _live(broker: MemoryBroker, clock: ManualClock, producers: MemoryProducers) -> Restored:
    """A task that was restored and acquired."""
    for topic in (TASK.journal.topic, "out"):
        broker.create(TopicSpec(topic, 1))
    genesis = Entry(kind=Kind.GENESIS, seq=1, owner="", nonce=b"n", positions={}, identity=IDENTITY)
    chunks, _ = encode_entry(genesis, NO_CHAIN, 1000)
    first = MemoryProducer(broker, "genesis")
    first.init()
    first.begin()
    first.append(TASK.journal, chunks)
    first.commit()
    world = World(
        cluster=MemoryCluster(broker),
        sources=MemorySources(broker),
        producers=producers,
        members=MemoryMembers(broker, clock),
        journals=lambda: MemoryJournalReader(broker),
        stores=MemoryStores(),
        clock=clock,
        random=SeededRandom(1),
        executor=InlineExecutor(),
        log=structlog.testing.CapturingLogger(),
        steps=NoSteps(),
    )
    settings = replace(WorkerSettings(), worker_id="w", retry_backoff_ms=100)
    return restore(TASK, "w", IDENTITY, lambda _topic: 0, world, settings, {})


def _commit(number: int) -> Commit:
    return Commit(Kind.COMMIT, {}, outputs=[Output("out", None, b"%d" % number, 0)])


def test_a_silent_retry_cannot_end_the_next_transaction() -> None:
    """The client repeats a commit request after its back-off and reports one clean commit. The late request
    may end whatever the same producer has open then, half written; a new producer's transaction it cannot.
    """
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    producers.seconds = [0.09]  # long enough for the request to have been sent twice
    live.publisher.publish(_commit(1))
    used = len(producers.opened)
    live.publisher.publish(_commit(2))
    assert len(producers.opened) == used + 1
    assert live.publisher.renewals == 1
    assert [record.value() for record in broker.records("out")] == [b"1", b"2"]


def test_commits_that_are_always_slow_are_said_with_what_to_do() -> None:
    """A cluster that takes that long works, but each commit costs a producer; nobody would guess why it is slow."""
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    producers.seconds = [0.09] * 30
    for number in range(30):
        live.publisher.publish(_commit(number))
    log = live.publisher._world.log
    assert isinstance(log, structlog.testing.CapturingLogger)
    said = [call.kwargs for call in log.calls if call.args == ("commits_slow",)]
    assert [fields["times"] for fields in said] == [10]
    assert "retry_backoff_ms" in said[0]["next"]


class FullDisk:
    """What RocksDB does on a disk without space: the write fails, and so does the close, with another text."""

    def apply(self, writes: object, position: bytes) -> None:
        raise CorruptStateError("no space left on device")

    def close(self) -> None:
        raise CorruptStateError("writer has previous error")


def test_a_store_that_cannot_be_closed_does_not_hide_what_ended_the_task() -> None:
    """The worker closes a failed task; an error from there would end the process, and all other tasks with it."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, SlowCommits(broker, clock))
    live.publisher._store = FullDisk()
    with pytest.raises(CorruptStateError, match="no space left on device"):
        live.publisher.publish(_commit(1))
    live.publisher.close()
    assert [record.value() for record in broker.records("out")] == [b"1"]


def test_quick_commits_keep_their_producer() -> None:
    """A renewal costs a round of init and a look at the journal: only doubt pays for it."""
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    for number in range(5):
        producers.seconds = [0.069]
        live.publisher.publish(_commit(number))
    assert live.publisher.renewals == 0
    assert len(producers.opened) == 1
