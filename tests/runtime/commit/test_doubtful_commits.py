"""Commits that are aborted, fenced or of unknown outcome: the journal says what happened."""

from __future__ import annotations

import pytest

from pipeline.errors import (
    AbortableError,
    FatalTaskError,
    FencedError,
    PipelineError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.sums import Sum, Sums


@pytest.mark.parametrize("call", ["send", "append", "flush"])
def test_an_aborted_commit_is_published_again(call: str) -> None:
    """A sealed commit does not change, so after the abort and a look at the journal it simply goes again."""
    sums = Sums.begun()
    sums.driver.broker.fail_next(call, AbortableError("ordered"), where="sums.main.0")
    sums.send(2, 3)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.check()


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_with_unknown_outcome_is_resolved_by_the_journal(happened: bool) -> None:
    """Neither doing it again nor leaving it is safe without asking."""
    sums = Sums.begun()
    sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_commit_that_aborts_forever_stops_the_task_and_loses_nothing() -> None:
    """Endless retries would hide the failure; the operator is told, and the next start continues."""
    sums = Sums.begun()
    for _ in range(5):
        sums.driver.broker.fail_next("flush", AbortableError("the topic refuses it"))
    sums.send(2)
    with pytest.raises(FatalTaskError, match="aborted 5 times in a row: the topic refuses it"):
        sums.driver.run()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_kafka_away_while_committing_is_waited_for() -> None:
    """An outage is no reason to stop: the commit goes out when the broker is back."""
    sums = Sums.begun()
    sums.driver.broker.fail_next("flush", AbortableError("timed out"))
    for _ in range(7):
        sums.driver.broker.fail_next("init", UnreachableError("away"))
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.check()


@pytest.mark.parametrize("call", ["init", "bounds", "read"])
@pytest.mark.parametrize("error", [UnreachableError("away"), UnknownOutcomeError("lost")])
@pytest.mark.parametrize("happened", [True, False])
def test_an_outage_while_a_doubtful_commit_is_resolved_loses_and_doubles_nothing(
    call: str, error: PipelineError, happened: bool
) -> None:
    """Outages come in the middle of recoveries, too: the task is restored, and the journal decides again."""
    sums = Sums.begun()
    sums.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    sums.driver.broker.fail_next(call, error)
    sums.send(2)
    sums.driver.run()
    assert sums.driver.broker.faults.left() == []
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_fence_that_was_only_a_time_out_is_recovered_from() -> None:
    """The client also reports a fence after a transaction timeout, when no other worker has the task."""
    sums = Sums.begun()
    sums.driver.broker.expire("sums.main.0")
    sums.send(2)
    sums.driver.run()
    sums.check()


def test_a_fence_between_a_doubtful_commit_and_the_look_at_the_journal_restores_the_task() -> None:
    """Our renewed init steals the task back from an owner in between: its entries must not be overwritten."""
    sums = Sums.begun()
    other = Sums(seed=1)
    other.driver.broker = sums.driver.broker
    other.driver.stores = MemoryStores()
    sums.send(2)
    # The first commit attempt of `sums` meets an unknown outcome just after `other` took the task and went on.
    other.driver.run()
    sums.driver.broker.fail_next("begin", UnknownOutcomeError("ordered"), where="sums.main.0")
    sums.send(3)
    sums.driver.run()
    sums.check()


def test_a_fence_in_the_middle_of_a_commit_leaves_nothing_behind() -> None:
    """What a zombie has written is aborted with its transaction: readers never see it."""
    sums = Sums.begun()
    sums.driver.broker.fail_next("commit", FencedError("newer"), where="sums.main.0")
    sums.send(2)
    sums.driver.run()
    assert [e.value for e in sums.driver.outputs(sums.sums)] == [Sum(1, 1), Sum(2, 3)]
    sums.check()


def test_an_acquire_in_between_is_not_taken_for_our_own_commit() -> None:
    """The new entry may be another process's: only the nonce tells."""
    sums = Sums.begun()
    other = Sums(seed=1)
    other.driver.broker = sums.driver.broker
    other.driver.stores = MemoryStores()
    other.driver.run()  # acquires; there is nothing else to do
    sums.driver.broker.fail_next("begin", UnknownOutcomeError("ordered"), where="sums.main.0")
    sums.send(2, 3)
    sums.driver.run()
    sums.check()
