"""A stale leader that still answers: whatever is decided from what it says is proven by a write, or taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.core.journal_format import assemble
from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError, UnknownOutcomeError, UnreachableError
from pipeline.ports import Step
from pipeline.runtime.commit.task_fence import TaskFence
from pipeline.testing.memory_clients import MemoryProducer
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.sums import Sums

# Readers that a scenario opens, at most: each of them in turn is the one that asks the stale leader.
CLIENTS = range(14)


class Nth:
    """Which of the clients that are opened ask the stale leader: only the one of this number, from 0."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened = 0

    def __call__(self) -> bool:
        self.opened += 1
        return self.opened - 1 == self.number


class First:
    """Which of the clients that are opened ask the stale leader: the first ones."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


class Outage:
    """The sums app after three commits that the stale leader knows, and `later` ones that it does not."""

    def __init__(self, *later: int) -> None:
        self.sums = Sums.begun()
        for number in (2, 3):
            self.commit(number)
        self.stale_leader = self.sums.driver.broker.add_stale_leader(lambda: False)
        for number in later:
            self.commit(number)

    def commit(self, number: int) -> None:
        self.sums.send(number)
        self.sums.driver.run()

    def check(self) -> None:
        """After more input, before and after the broker finds its controllers: nothing lost, nothing twice."""
        self.commit(7)
        self.sums.driver.broker.heal()
        self.commit(8)
        self.sums.check()
        journal = self.sums.task.journal
        chunks = [(r.offset(), r.value() or b"") for r in self.sums.driver.broker.records(journal.topic)]
        seqs = [entry.entry.seq for entry in assemble(chunks, str(journal))]
        assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("empty_disk", [True, False])
@pytest.mark.parametrize("nth", CLIENTS)
def test_a_stale_journal_end_never_forks_a_journal(nth: int, empty_disk: bool) -> None:
    """The fence goes to a healthy coordinator, so a fence before the read does not make the read current."""
    outage = Outage(4, 5, 6)
    outage.stale_leader.answers = Nth(nth)
    outage.sums.driver.restart(empty_disk=empty_disk)
    outage.check()


@pytest.mark.parametrize("count", range(1, 16))
def test_two_stale_readers_in_a_row_fork_no_journal(count: int) -> None:
    """The reader that is to prove the first one may ask the stale leader, too."""
    outage = Outage(4, 5, 6)
    outage.stale_leader.answers = First(count)
    outage.sums.driver.restart(empty_disk=True)
    outage.check()


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("later", [0, 2])
@pytest.mark.parametrize("nth", range(6))
def test_a_stale_answer_on_a_doubtful_commit_doubles_nothing(nth: int, later: int, happened: bool) -> None:
    """A commit that happened would be taken for an aborted one and be published a second time."""
    outage = Outage(*range(4, 4 + later))
    outage.stale_leader.answers = Nth(nth)
    outage.sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    outage.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_reset_by_a_stale_end_does_not_fork_the_journal(nth: int) -> None:
    """Its entry must follow the last one, not the last one that the stale leader knows."""
    outage = Outage(4, 5)
    outage.stale_leader.answers = Nth(nth)
    outage.sums.driver.reset("latest")
    outage.sums.driver.run()
    outage.commit(6)
    outage.sums.driver.broker.heal()
    outage.sums.driver.restart(empty_disk=True)
    outage.commit(7)
    assert outage.sums.driver.table(outage.sums.totals)["a"].count == 2


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("nth", CLIENTS)
def test_a_stale_first_read_writes_no_second_genesis(nth: int, created: bool) -> None:
    """A worker that starts beside the first one would begin the journal a second time."""
    first = Sums()
    if created:
        first.driver.crash_at(Step.BEFORE_GENESIS)
        first.driver.run()
        first.driver.restart()
    stale_leader = first.driver.broker.add_stale_leader(lambda: False)
    first.send(1)
    first.driver.run()
    first.driver.crash()
    stale_leader.answers = First(nth) if created else Nth(nth)
    second = Sums(seed=1)
    second.driver.broker, second.driver.stores = first.driver.broker, MemoryStores()
    second.driver.clock = first.driver.clock
    second.driver.clock.advance(1.0)  # of two processes of one worker id the newer one counts
    second.sent = first.sent
    second.driver.run()
    second.send(2)
    second.driver.run()
    second.check()


@pytest.mark.parametrize("nth", range(4))
def test_one_old_description_of_topics_stops_no_task(nth: int) -> None:
    """The topics were created after the broker became a stale leader: it answers that they do not exist."""
    sums = Sums()
    for topic in list(sums.driver.broker.topics()):
        sums.driver.broker.delete(topic)
    stale_leader = sums.driver.broker.add_stale_leader(lambda: False)
    sums.driver.create_topics()
    sums.send(1)
    sums.driver.run()
    stale_leader.answers = Nth(nth)
    sums.driver.clock.advance(sums.driver.settings.check_interval_s + 1)
    sums.driver.run()
    sums.send(2)
    sums.driver.run()
    sums.check()


def test_an_open_transaction_that_is_over_holds_up_no_take_over() -> None:
    """The stale leader shows it as open for as long as it is asked."""
    sums = Sums.begun()
    sums.send(2)
    sums.driver.crash_at(Step.AFTER_FLUSH)
    sums.driver.run()
    stale_leader = sums.driver.broker.add_stale_leader(lambda: False)
    for nth in range(12):
        stale_leader.answers = Nth(nth)
        began = sums.driver.clock.monotonic_s()
        sums.driver.restart()
        sums.driver.run()
        assert sums.driver.clock.monotonic_s() - began < 10
    sums.check()


@pytest.mark.unverified
def test_a_tail_that_is_lost_behind_a_barrier_ends_the_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the leader said before does not hold any more; to wait for it would be to wait forever."""
    sums = Sums.begun()
    broker, journal = sums.driver.broker, sums.task.journal
    written = TaskFence.barrier

    def barrier(self: TaskFence) -> None:
        written(self)
        broker.lose_tail(journal, 3)

    monkeypatch.setattr(TaskFence, "barrier", barrier)
    broker.fail_next("commit", UnknownOutcomeError("no answer"))
    broker.fail_next("read", FatalTaskError("torn"), where=str(journal))
    sums.send(2)
    with pytest.raises(FatalTaskError, match="Kafka lost committed records"):
        sums.driver.run()


def test_slow_aborts_keep_no_group_from_its_genesis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The abort of a barrier may have been sent twice, so that the producer is renewed; what was read stays true."""
    sums = Sums()
    abort = MemoryProducer.abort

    def slow(self: MemoryProducer, timeout_s: float | None = None) -> None:
        sums.driver.clock.advance(0.4)
        abort(self, timeout_s)

    monkeypatch.setattr(MemoryProducer, "abort", slow)
    sums.send(1)
    sums.driver.run()
    sums.check()


def test_a_start_writes_nothing_into_the_journal_of_a_group_that_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A barrier of another transactional id could lie between two chunks of an entry."""
    first = Sums.begun()
    appended = []
    append = MemoryProducer.append

    def noted(
        self: MemoryProducer, journal: TopicPartition, chunks: Sequence[bytes], key: bytes | None = None
    ) -> None:
        appended.append(self._id)
        append(self, journal, chunks, key)

    second = Sums()
    second.driver.broker, second.driver.stores = first.driver.broker, MemoryStores()
    second.driver.clock = first.driver.clock
    second.driver.clock.advance(1.0)
    monkeypatch.setattr(MemoryProducer, "append", noted)
    first.driver.broker.fail_next(
        "bounds", UnreachableError("no answer"), where=str(first.task.journal), skip=1
    )
    second.driver.run()
    assert "sums.main.genesis" not in appended
