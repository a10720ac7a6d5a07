"""A deposed broker that still answers: whatever is decided from what it says is proven by a write, or taken back."""

from __future__ import annotations

import pytest

from pipeline.core.journal import assemble
from pipeline.errors import UnknownOutcomeError
from pipeline.ports import Step
from pipeline.testing import MemoryStores
from tests.runtime.sums import Sums

# Readers that a scenario opens, at most: each of them in turn is the one that asks the deposed broker.
CLIENTS = range(14)


class Nth:
    """Which of the clients that are opened ask the deposed broker: only the one of this number, from 0."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened = 0

    def __call__(self) -> bool:
        self.opened += 1
        return self.opened - 1 == self.number


class First:
    """Which of the clients that are opened ask the deposed broker: the first ones."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


class Outage:
    """The sums app after three commits that the deposed broker knows, and `later` ones that it does not."""

    def __init__(self, *later: int) -> None:
        self.sums = Sums.begun()
        for number in (2, 3):
            self.commit(number)
        self.deposed = self.sums.driver.broker.depose(lambda: False)
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
    outage.deposed.asked_by = Nth(nth)
    outage.sums.driver.restart(empty_disk=empty_disk)
    outage.check()


@pytest.mark.parametrize("count", range(1, 16))
def test_two_stale_readers_in_a_row_fork_no_journal(count: int) -> None:
    """The reader that is to prove the first one may ask the deposed broker, too."""
    outage = Outage(4, 5, 6)
    outage.deposed.asked_by = First(count)
    outage.sums.driver.restart(empty_disk=True)
    outage.check()


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("later", [0, 2])
@pytest.mark.parametrize("nth", range(6))
def test_a_stale_answer_on_a_doubtful_commit_doubles_nothing(nth: int, later: int, happened: bool) -> None:
    """A commit that happened would be taken for an aborted one and be published a second time."""
    outage = Outage(*range(4, 4 + later))
    outage.deposed.asked_by = Nth(nth)
    outage.sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    outage.check()


@pytest.mark.parametrize("nth", CLIENTS)
def test_a_reset_by_a_stale_end_does_not_fork_the_journal(nth: int) -> None:
    """Its entry must follow the last one, not the last one that the deposed broker knows."""
    outage = Outage(4, 5)
    outage.deposed.asked_by = Nth(nth)
    outage.sums.driver.reset("latest")
    outage.sums.driver.run()
    outage.commit(6)
    outage.sums.driver.broker.heal()
    outage.sums.driver.restart(empty_disk=True)
    outage.commit(7)
    assert outage.sums.driver.table(outage.sums.totals)["a"].count == 2


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("nth", CLIENTS)
def test_a_stale_first_look_writes_no_second_genesis(nth: int, created: bool) -> None:
    """A worker that starts beside the first one would begin the journal a second time."""
    first = Sums()
    if created:
        first.driver.crash_at(Step.BEFORE_GENESIS)
        first.driver.run()
        first.driver.restart()
    deposed = first.driver.broker.depose(lambda: False)
    first.send(1)
    first.driver.run()
    first.driver.crash()
    deposed.asked_by = First(nth) if created else Nth(nth)
    second = Sums(seed=1)
    second.driver.broker, second.driver.stores = first.driver.broker, MemoryStores()
    second.driver.clock = first.driver.clock
    second.driver.clock.advance(1.0)  # of two processes of one worker id the newer one counts
    second.sent = first.sent
    second.driver.run()
    second.send(2)
    second.driver.run()
    second.check()
