"""The publisher alone: what only shows with the clock in hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog

from pipeline.config import WorkerSettings
from pipeline.core.journal_format import NO_CHAIN, Entry, EntryKind, Identity, encode_entry
from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import (
    AbortableError,
    CorruptStateError,
    FatalTaskError,
    PipelineError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, TopicSpec
from pipeline.runtime.commit.commit_protocol import MAX_QUICK_ATTEMPTS, RETRY_PAUSE_S
from pipeline.runtime.commit.journal_writer import Commit
from pipeline.runtime.environment import Environment, NoSteps
from pipeline.runtime.restore.restore import RestoredState, restore
from pipeline.testing import DriverDatabases, ManualClock, MemoryBroker, SeededRandom
from pipeline.testing.memory_clients import (
    MemoryCluster,
    MemoryJournalReader,
    MemoryProducer,
    MemoryProducers,
    MemorySources,
)
from pipeline.testing.memory_members import MemoryMembers
from pipeline.testing.memory_store import MemoryStores
from pipeline.testing.system import InlineExecutor

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

        def slow(timeout_s: float | None = None) -> None:
            commit(timeout_s)
            self._clock.advance(self.seconds.pop(0) if self.seconds else 0.001)

        producer.commit = slow  # type: ignore[method-assign]
        self.opened.append(producer)
        return producer


def _live(broker: MemoryBroker, clock: ManualClock, producers: MemoryProducers) -> RestoredState:
    """A task that was restored and acquired."""
    for topic in (TASK.journal.topic, "out"):
        broker.create(TopicSpec(topic, 1))
    genesis = Entry(kind=EntryKind.GENESIS, seq=1, owner="", nonce=b"n", positions={}, identity=IDENTITY)
    chunks, _ = encode_entry(genesis, NO_CHAIN, 1000)
    first = MemoryProducer(broker, "genesis")
    first.init()
    first.begin()
    first.append(TASK.journal, chunks)
    first.commit()
    environment = Environment(
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
        databases=DriverDatabases(),
    )
    settings = replace(WorkerSettings(), worker_id="w", retry_backoff_ms=100)
    return restore(TASK, "w", IDENTITY, lambda names: dict.fromkeys(names, 0), environment, settings, {})


def _commit(number: int) -> Commit:
    return Commit(EntryKind.COMMIT, {}, outputs=[Output("out", None, b"%d" % number, 0)])


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
    live.publisher.publish(_commit(3))
    assert live.publisher.renewals == 1  # the new producer has nothing to be renewed for


@pytest.mark.parametrize("call", ["send", "append", "flush", "commit"])
def test_after_every_abort_the_next_transaction_has_a_new_producer(call: str) -> None:
    """An abort request that was sent twice may come late, and would end the next transaction half-way."""
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    used = len(producers.opened)
    broker.fail_next(call, AbortableError("refused"))
    live.publisher.publish(_commit(1))
    assert len(producers.opened) == used + 1
    assert [record.value() for record in broker.records("out")] == [b"1"]


@pytest.mark.parametrize("happened", [False, True])
def test_a_refused_commit_is_given_up_only_if_it_has_not_happened(happened: bool) -> None:
    """Its records are processed again: the journal, and not the error, says that this is right."""
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    seq = live.applied.seq
    broker.fail_next("flush", RefusedError("an output is refused", topic="out"), after=True)
    if happened:  # a commit request that was delayed arrives before the abort
        late = lambda _timeout_s=None: broker.stray_commit(TASK.transactional_id)  # noqa: E731
        producers.opened[-1].abort = late  # type: ignore[method-assign]
        assert live.publisher.publish(_commit(1)).seq == seq + 1
    else:
        with pytest.raises(RefusedError):
            live.publisher.publish(_commit(1))
        assert live.publisher.applied == live.applied
    assert live.publisher.renewals == 1
    assert [record.value() for record in broker.records("out")] == ([b"1"] if happened else [])


def test_commits_that_are_always_slow_are_said_with_what_to_do() -> None:
    """With a slow cluster, each commit needs a new producer; the log must show why it is slow."""
    broker, clock = MemoryBroker(), ManualClock()
    producers = SlowCommits(broker, clock)
    live = _live(broker, clock, producers)
    producers.seconds = [0.09] * 30
    for number in range(30):
        live.publisher.publish(_commit(number))
    log = live.publisher._environment.log
    assert isinstance(log, structlog.testing.CapturingLogger)
    said = [call.kwargs for call in log.calls if call.args == ("commits_slow",)]
    assert [fields["count"] for fields in said] == [10]
    assert "retry_backoff_ms" in said[0]["hint"]


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


@pytest.mark.parametrize(
    "error", [AbortableError("x"), UnknownOutcomeError("x"), UnreachableError("x")], ids=repr
)
def test_an_abort_that_fails_is_made_up_for_by_the_fence(error: PipelineError) -> None:
    """It is a courtesy to readers who wait behind the transaction; the renewal after it ends that anyway."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    broker.fail_next("flush", AbortableError("refused"))
    broker.fail_next("abort", error)
    live.publisher.publish(_commit(1))
    assert broker.faults.left() == []
    assert [record.value() for record in broker.records("out")] == [b"1"]


def test_a_refused_commit_is_aborted_before_anybody_waits_for_its_end() -> None:
    """Readers of the outputs stand still at an open transaction for as long as the renewal takes to fence it."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    broker.fail_next("commit", AbortableError("refused"))
    broker.fail_next("init", FatalTaskError("the fence comes too late"))
    with pytest.raises(FatalTaskError, match="too late"):
        live.publisher.publish(_commit(1))
    _, stable_end, end = broker.bounds(TopicPartition("out", 0))
    assert stable_end == end == 2  # the record and the marker of its abort


@pytest.mark.parametrize("call", ["append", "flush", "commit"])
def test_a_stopping_worker_publishes_a_refused_commit_again(call: str) -> None:
    """After transactional.id.expiration.ms without a commit the first one is refused, and a new producer is not."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    live.publisher.stop_waiting()
    broker.fail_next(call, AbortableError("Producer attempted to use a producer id which is not assigned"))
    live.publisher.publish(_commit(1))
    assert [record.value() for record in broker.records("out")] == [b"1"]


def test_a_stopping_worker_gives_a_refused_commit_two_tries() -> None:
    """It has stop_timeout_s; the next start publishes from the same input."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    live.publisher.stop_waiting()
    for _ in range(3):
        broker.fail_next("flush", AbortableError("refused"))
    with pytest.raises(UnreachableError, match="the last commit failed: refused"):
        live.publisher.publish(_commit(1))
    assert broker.faults.left() == ["flush"]


def test_a_commit_that_is_refused_again_and_again_is_given_up_with_pauses_in_between() -> None:
    """Five tries within a millisecond would meet the same hiccup of a broker five times."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    began_s = clock.monotonic_s()
    for _ in range(MAX_QUICK_ATTEMPTS):
        broker.fail_next("flush", AbortableError("refused"))
    with pytest.raises(FatalTaskError, match="aborted 5 times in a row: refused"):
        live.publisher.publish(_commit(1))
    assert clock.monotonic_s() - began_s >= RETRY_PAUSE_S * (MAX_QUICK_ATTEMPTS - 1)


def test_an_outage_is_asked_after_ever_more_seldom_and_at_least_every_five_seconds() -> None:
    """A hundred tasks that ask ten times a second keep a broker from coming back; a minute's pause would be lost."""
    broker, clock = MemoryBroker(), ManualClock()
    live = _live(broker, clock, MemoryProducers(broker))
    pauses: list[float] = []
    clock.sleep = pauses.append  # type: ignore[method-assign,assignment]
    for _ in range(8):
        broker.fail_next("init", UnreachableError("away"))
    live.publisher.fence()
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
