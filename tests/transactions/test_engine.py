"""The steps of a fenced transaction, on the in-memory Kafka: what must not be skipped, and what each failure leaves."""

from __future__ import annotations

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import (
    AbortableError,
    ConfigError,
    FatalTaskError,
    FencedError,
    InvariantError,
    PipelineError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ports import Output, TopicSpec
from pipeline.testing import ManualClock, MemoryBroker
from pipeline.testing.memory_clients import MemoryProducers
from pipeline.transactions.engine import TransactionEngine, try_fence
from tests.support.transactions.slow import SlowEnds

ID = "engine-1"
OUT = TopicPartition("out", 0)
BACKOFF_MS = 100
PASSING = [
    UnreachableError("no answer"),
    RetriableError("again"),
    UnknownOutcomeError("lost"),
    AbortableError("aborted"),
]


class Rig:
    """An engine and its broker. `ends`: how long its commits and aborts take."""

    def __init__(self) -> None:
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.broker.create(TopicSpec("out", 1))
        self.ends = SlowEnds(self.broker, self.clock)
        self.engine = TransactionEngine(ID, self.ends, self.clock, BACKOFF_MS)

    def write(self, value: bytes) -> None:
        self.engine.begin()
        self.engine.send([Output("out", None, value, 1)])
        self.engine.flush()

    def commit(self, value: bytes) -> None:
        self.write(value)
        self.engine.commit()

    @property
    def written(self) -> list[bytes | None]:
        return [record.value() for record in self.broker.records("out")]


def test_a_transaction_commits_after_a_fence() -> None:
    """The plain case."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    rig.engine.commit()
    rig.write(b"2")
    rig.engine.commit()
    assert rig.written == [b"1", b"2"]
    assert len(rig.ends.opened) == 1


def test_no_transaction_begins_before_a_fence() -> None:
    """Without a fence an older process could still commit."""
    rig = Rig()
    assert rig.engine.fence_due
    with pytest.raises(InvariantError, match="without a fence"):
        rig.engine.begin()


@pytest.mark.parametrize("call", ["begin", "send", "flush", "commit"])
@pytest.mark.parametrize("error", [AbortableError("x"), UnknownOutcomeError("x")], ids=repr)
def test_no_transaction_begins_after_a_failure(call: str, error: PipelineError) -> None:
    """A late request of the failed one could end the next one."""
    rig = Rig()
    rig.engine.fence()
    rig.broker.fail_next(call, error)
    with pytest.raises(type(error)):
        rig.commit(b"1")
    rig.engine.abort()
    with pytest.raises(InvariantError, match="without the fence that is due"):
        rig.engine.begin()
    rig.engine.fence()
    rig.write(b"2")
    rig.engine.commit()
    assert rig.written == [b"2"]


@pytest.mark.parametrize(("seconds", "due"), [(0.069, False), (0.071, True), (5.0, True)])
def test_a_slow_commit_makes_a_fence_due(seconds: float, due: bool) -> None:
    """The client may have sent the request twice; the broker has answered once."""
    rig = Rig()
    rig.engine.fence()
    rig.ends.commit_s = seconds
    rig.write(b"1")
    assert rig.engine.commit() == pytest.approx(seconds)
    assert rig.engine.fence_due is due


@pytest.mark.parametrize(("seconds", "due"), [(0.069, False), (0.071, True)])
def test_a_slow_barrier_makes_a_fence_due(seconds: float, due: bool) -> None:
    """Its abort may have been sent twice, too."""
    rig = Rig()
    rig.engine.fence()
    rig.ends.abort_s = seconds
    rig.engine.barrier([OUT])
    assert rig.engine.fence_due is due


def test_a_barrier_tells_the_end_and_leaves_nothing_to_read() -> None:
    """Its offset comes from the leader, and its record is aborted."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    rig.engine.commit()
    assert rig.engine.barrier([OUT]) == {OUT: 2}  # a record and a marker are before it
    assert rig.written == [b"1"]
    _, stable_end, end = rig.broker.bounds(OUT)
    assert stable_end == end == 4


def test_an_abort_spares_readers_the_wait_for_the_fence() -> None:
    """They cannot read past an open transaction."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    assert rig.engine.abort() is None
    _, stable_end, end = rig.broker.bounds(OUT)
    assert stable_end == end
    assert rig.engine.abort() is None  # nothing is open any more
    assert rig.engine.fence_due


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_abort_that_fails_is_returned(error: PipelineError) -> None:
    """The fence that is due ends the transaction; the reason of the abort must not be lost behind this one."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    rig.broker.fail_next("abort", error)
    assert rig.engine.abort() is error
    rig.engine.fence()
    assert rig.written == []


def test_an_abort_by_a_fenced_engine_says_so() -> None:
    """The process must not continue."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    TransactionEngine(ID, MemoryProducers(rig.broker), rig.clock, BACKOFF_MS).fence()
    with pytest.raises(FencedError):
        rig.engine.abort()


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_fence_is_tried_again_for_as_long_as_the_caller_wants(error: PipelineError) -> None:
    """How long an unreachable Kafka is waited for is up to each user; each try has a client of its own."""
    rig, told = Rig(), []

    def again(failure: PipelineError) -> bool:
        told.append(failure)
        return len(told) < 3

    for _ in range(3):
        rig.broker.fail_next("init", error)
    with pytest.raises(type(error)):
        rig.engine.fence(again)
    assert told == [error] * 3
    assert rig.ends.open_now == 0
    rig.engine.fence(again)
    assert rig.ends.open_now == 1
    rig.engine.close()
    assert rig.ends.open_now == 0


@pytest.mark.parametrize("error", [FencedError("x"), ConfigError("x"), FatalTaskError("x")], ids=repr)
def test_a_fence_that_cannot_succeed_is_not_tried_again(error: PipelineError) -> None:
    """Waiting would hide what the operator must correct."""
    rig = Rig()
    rig.broker.fail_next("init", error)
    with pytest.raises(type(error)):
        rig.engine.fence(lambda _error: True)
    assert not rig.engine.has_client


def test_a_closed_engine_needs_a_fence() -> None:
    """What it left open is ended by that fence."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"1")
    rig.engine.close()
    with pytest.raises(InvariantError):
        rig.engine.begin()
    rig.engine.fence()
    assert rig.written == []
    _, stable_end, end = rig.broker.bounds(OUT)
    assert stable_end == end


def test_a_tried_fence_fences_and_releases_its_client() -> None:
    """It must ask for the same permission as a worker, and leave nothing open."""
    rig = Rig()
    rig.engine.fence()
    rig.write(b"old")
    open_before = rig.ends.open_now
    try_fence(ID, rig.ends)
    assert rig.ends.open_now == open_before
    with pytest.raises(FencedError):
        rig.engine.commit()
    assert rig.written == []
    rig.broker.fail_next("init", ConfigError("denied"), where=ID)
    with pytest.raises(ConfigError):
        try_fence(ID, rig.ends)
