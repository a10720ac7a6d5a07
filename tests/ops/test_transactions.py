"""Transactions of a command, on in-memory ports: which error is waited for, and when a commit is looked up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.core.names import TopicPartition
from pipeline.core.recovery import CommitOutcome
from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    FencedError,
    PipelineError,
    RefusedError,
    RetriableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ops.transactions import ReceiptTransactions
from pipeline.ports import Output, TopicSpec
from pipeline.testing import ManualClock, MemoryBroker
from pipeline.testing.memory_clients import MemoryProducer, MemoryProducers
from pipeline.transactions.engine import TransactionEngine

BACKOFF_MS = 100
AWAY = UnreachableError("away")
PASSING = [AWAY, RetriableError("again"), UnknownOutcomeError("no answer"), AbortableError("refused")]


class SlowProducers(MemoryProducers):
    """Producers whose calls take time: seconds by the call's name."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        super().__init__(broker)
        self.takes_s: dict[str, float] = {}
        self.open_now = 0
        self._clock = clock

    def open(self, transactional_id: str) -> MemoryProducer:
        producer = super().open(transactional_id)
        for call in ("flush", "commit"):
            setattr(producer, call, self._slow(call, getattr(producer, call)))
        close = producer.close

        def closing() -> None:
            close()
            self.open_now -= 1

        producer.close = closing  # type: ignore[method-assign]
        self.open_now += 1
        return producer

    def _slow(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def slow(*arguments: object) -> object:
            self._clock.advance(self.takes_s.get(name, 0.0))
            return call(*arguments)

        return slow


class Command:
    """A command that writes one record in each transaction."""

    def __init__(self) -> None:
        self.broker, self.clock = MemoryBroker(), ManualClock()
        self.broker.create(TopicSpec("out", 1))
        self.producers = SlowProducers(self.broker, self.clock)
        self.broker.create(TopicSpec("receipts", 1))
        receipts = TopicPartition("receipts", 0)
        self.transactions = ReceiptTransactions("id", [receipts], self.producers, self.clock, BACKOFF_MS)
        self.looks: list[CommitOutcome | PipelineError] = []
        self.looked = 0

    def write(self) -> str:
        return self.transactions.write("record 1", lambda: "receipt", self._send, self._look)

    @property
    def written(self) -> int:
        return len(self.broker.records("out"))

    def _send(self, engine: TransactionEngine, receipt: str) -> None:
        engine.send([Output("out", None, receipt.encode(), 0)])

    def _look(self, _receipt: str) -> CommitOutcome:
        self.looked += 1
        found = self.looks.pop(0)
        if isinstance(found, PipelineError):
            raise found
        return found


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_fence_waits_for_a_kafka_that_is_away_as_long_as_it_is_told(error: PipelineError) -> None:
    """In the middle of a load an outage is waited for; and each try has a client, which must not be left behind."""
    command = Command()
    for _ in range(5):
        command.broker.fail_next("init", error)
    began_s = command.clock.monotonic_s()
    command.transactions.fence(60.0)
    assert command.broker.faults.left() == []
    assert 0.0 < command.clock.monotonic_s() - began_s < 60.0
    assert command.producers.open_now == 1
    command.transactions.close()
    assert command.producers.open_now == 0


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_fence_is_tried_once_unless_told_to_wait(error: PipelineError) -> None:
    """At a start the person at the terminal hears at once that Kafka is not there."""
    command = Command()
    command.broker.fail_next("init", error)
    with pytest.raises(type(error)):
        command.transactions.fence()


def test_a_fence_gives_up_after_the_time_it_has() -> None:
    """A cron job must end some day."""
    command = Command()
    for _ in range(2_000):
        command.broker.fail_next("init", AWAY)
    began_s = command.clock.monotonic_s()
    with pytest.raises(UnreachableError):
        command.transactions.fence(60.0)
    assert 59.0 < command.clock.monotonic_s() - began_s < 61.0


def test_a_quick_commit_is_believed() -> None:
    """A look at what is committed costs more than the commit."""
    command = Command()
    command.transactions.fence()
    command.producers.takes_s = {"flush": 5.0, "commit": 0.069}
    assert command.write() == "receipt"
    assert command.looked == 0
    assert command.written == 1


@pytest.mark.parametrize("commit_s", [0.07, 1.0])
def test_a_slow_commit_is_looked_up_behind_a_fence(commit_s: float) -> None:
    """The client may have sent it twice, and the second request would end the next transaction half-way."""
    command = Command()
    command.transactions.fence()
    command.producers.takes_s = {"commit": commit_s}
    command.looks = [CommitOutcome.COMMITTED]
    before = command.broker.init("id")
    command.transactions.fence()
    command.write()
    assert command.looked == 1
    assert command.broker.init("id") == before + 3  # the fence before, the renewal, and this


def test_a_commit_that_was_confirmed_and_is_gone_is_a_loss() -> None:
    """Sending it again would hide that Kafka loses what it has acknowledged."""
    command = Command()
    command.transactions.fence()
    command.producers.takes_s = {"commit": 1.0}
    command.looks = [CommitOutcome.ABORTED]
    with pytest.raises(FatalTaskError, match="its records are missing"):
        command.write()


@pytest.mark.parametrize("error", [AWAY, RetriableError("again")], ids=repr)
def test_a_look_is_made_again_while_kafka_is_away(error: PipelineError) -> None:
    """An outage that lost the answer often lasts some seconds longer."""
    command = Command()
    command.transactions.fence()
    command.broker.fail_next("commit", UnknownOutcomeError("no answer"), after=True)
    command.looks = [error, error, error, CommitOutcome.COMMITTED]
    began_s = command.clock.monotonic_s()
    command.write()
    assert command.looked == 4
    assert command.clock.monotonic_s() > began_s
    assert command.written == 1


def test_a_look_gives_up_after_a_minute() -> None:
    """What is committed is known to the next run."""
    command = Command()
    command.transactions.fence()
    command.broker.fail_next("commit", UnknownOutcomeError("no answer"), after=True)
    command.looks = [AWAY] * 2_000
    began_s = command.clock.monotonic_s()
    with pytest.raises(UnreachableError):
        command.write()
    assert 59.0 < command.clock.monotonic_s() - began_s < 62.0


def test_another_ones_progress_ends_this_one() -> None:
    """Two loads of one name: the newer one has the name."""
    command = Command()
    command.transactions.fence()
    command.broker.fail_next("flush", AbortableError("refused"))
    command.looks = [CommitOutcome.SUPERSEDED]
    with pytest.raises(FencedError):
        command.write()


@pytest.mark.parametrize("found", [CommitOutcome.ABORTED, CommitOutcome.COMMITTED])
def test_a_refused_record_is_not_sent_five_times(found: CommitOutcome) -> None:
    """It would be refused each time. But what is committed decides, as after any failure."""
    command = Command()
    command.transactions.fence()
    command.broker.fail_next(
        "flush", RefusedError("topic out refuses it", hint="raise the limit", topic="out")
    )
    command.looks = [found]
    if found is CommitOutcome.COMMITTED:
        assert command.write() == "receipt"
    else:
        with pytest.raises(RefusedError, match="record 1: topic out refuses it") as raised:
            command.write()
        assert "raise the limit; all earlier records are committed" in str(raised.value)
    assert command.looked == 1
