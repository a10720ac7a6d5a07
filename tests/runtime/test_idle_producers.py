"""Producers that are closed while their tasks are idle: which ones, and what the next commit finds."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import ANY

import pytest

from pipeline.config import WorkerSettings
from pipeline.errors import InvariantError, UnknownOutcomeError, UnreachableError
from pipeline.ports import Step
from pipeline.runtime import idle_producers
from pipeline.runtime.idle_producers import AT_ONCE, IDLE_S, KEPT
from pipeline.runtime.task.task import Task
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.fleet import Fleet
from tests.support.runtime.steps import COMMIT_STEPS
from tests.support.runtime.sums import Sums

ID = "sums.main.0"
CHECK_S = WorkerSettings().check_interval_s


def tasks_of(sums: Sums) -> list[Task]:
    return [task for run in sums.driver.worker.runs for task in run.tasks.values() if isinstance(task, Task)]


def rest(sums: Sums, seconds: float = IDLE_S + 3 * CHECK_S) -> None:
    """Let time pass for the periodic checks."""
    for _ in range(int(seconds / CHECK_S)):
        sums.driver.clock.advance(CHECK_S)
        sums.driver.run()


@pytest.fixture
def inits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Is run before the next fence of the task, one for each."""
    before: list[Callable[[], object]] = []
    init = MemoryBroker.init

    def noted(self: MemoryBroker, transactional_id: str) -> int:
        if transactional_id == ID and before:
            before.pop(0)()
        return init(self, transactional_id)

    monkeypatch.setattr(MemoryBroker, "init", noted)
    return before


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> Sums:
    """A worker with one task, whose producer is closed."""
    monkeypatch.setattr(idle_producers, "KEPT", 0)
    sums = Sums.begun()
    rest(sums)
    assert [task.producer_closed for task in tasks_of(sums)] == [True]
    monkeypatch.setattr(idle_producers, "KEPT", KEPT)
    return sums


def another(sums: Sums) -> Sums:
    """A worker of the same app with another disk, which has not started yet."""
    other = Sums(seed=1)
    other.driver.broker = sums.driver.broker
    other.driver.clock = sums.driver.clock
    other.driver.stores = MemoryStores()
    other.sent = sums.sent
    return other


def test_the_producers_that_were_idle_for_longest_are_closed() -> None:
    """A worker with hundreds of tasks of one partition had thousands of threads, most of which did nothing."""
    sums = Sums(partitions=KEPT + 3, tasks=KEPT + 3)
    sums.driver.run()
    rest(sums, IDLE_S - 2 * CHECK_S)
    assert not any(task.producer_closed for task in tasks_of(sums))
    sums.driver.send(sums.numbers, "a", 1, partition=0)
    sums.driver.run()
    rest(sums, IDLE_S / 2)
    closed = [task.id.number for task in tasks_of(sums) if task.producer_closed]
    assert len(closed) == 3 <= AT_ONCE
    assert 0 not in closed
    assert [event["count"] for event in sums.driver.log_events("idle_producers_closed")] == [3]


def test_a_group_with_the_default_number_of_tasks_closes_nothing() -> None:
    """The first commit after a pause would take longer, and the threads of 32 tasks are no problem."""
    sums = Sums(partitions=KEPT, tasks=KEPT)
    sums.driver.run()
    rest(sums)
    assert not any(task.producer_closed for task in tasks_of(sums))


def test_the_next_commit_opens_a_producer_again(resting: Sums) -> None:
    """Its renewal is not one of a failed producer, which would ask for another retry_backoff_ms."""
    resting.send(2, 3)
    resting.driver.run()
    resting.check()
    (task,) = tasks_of(resting)
    assert not task.producer_closed
    assert task._publisher.renewals == 0
    resting.send(4)
    resting.driver.run()
    resting.check()


def test_a_producer_in_use_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its open transaction would be left to the fence, and its commit would end in doubt."""
    monkeypatch.setattr(idle_producers, "KEPT", 0)
    monkeypatch.setattr(idle_producers, "IDLE_S", 0.0)
    sums = Sums.begun()
    sums.send(2)
    sums.driver.step()
    (task,) = tasks_of(sums)
    sums.driver.clock.advance(CHECK_S)
    with pytest.raises(InvariantError, match="in use"):
        task.close_producer()
    sums.driver.run()
    sums.check()


def test_a_commit_waits_until_the_producer_is_closed() -> None:
    """Another thread closes it. Their calls would be mixed, and the close would leave an open transaction."""
    sums = Sums(deferred=True)
    sums.send(1)
    sums.driver.run()
    (task,) = tasks_of(sums)
    task.close_producer()
    sums.send(2, 3)
    for _ in range(5):
        sums.driver.clock.advance(0.1)
        sums.driver.worker.step()  # the executor does nothing meanwhile
    assert task.positions["numbers"] == 3
    assert task._under_way is None
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("step", COMMIT_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_the_commit_that_opens_it_again(
    resting: Sums, step: Step, empty_disk: bool
) -> None:
    """The commit is like any other after its fence; the restart recovers from what the crash leaves."""
    resting.driver.crash_at(step)
    resting.send(2)
    resting.driver.run()
    assert resting.driver.crashed
    resting.driver.restart(empty_disk=empty_disk)
    resting.send(3)
    resting.driver.run()
    resting.check()


def test_a_task_that_was_taken_meanwhile_is_not_taken_back(
    resting: Sums, inits: list[Callable[[], object]]
) -> None:
    """A worker that was paused would fence the healthy owner, which then loses its work and restores again."""
    other = another(resting)
    other.driver.run()
    fences: list[str] = []
    inits.append(lambda: fences.append(ID))
    resting.send(2)
    worker = resting.driver.worker
    worker.step()  # no check of idle tasks is due
    resting.driver.clock.advance(0.1)
    for _ in range(3):
        worker.step()
    assert resting.driver.log_events("task_fenced")
    assert fences == []
    other.driver.run()
    other.check()


@pytest.mark.parametrize("committed", [False, True])
def test_a_task_that_is_taken_after_the_look_is_given_up(
    resting: Sums, inits: list[Callable[[], object]], committed: bool
) -> None:
    """Only the read after the fence is certain: a commit after the old head would fork the journal."""
    other = another(resting)

    def take() -> None:
        other.driver.run()
        if committed:
            other.send(5, key="b")
            other.driver.run()

    inits.append(take)
    resting.send(2)
    resting.driver.run()
    assert resting.driver.log_events("task_superseded")
    resting.send(3)
    resting.driver.run()
    resting.check()


@pytest.mark.parametrize("call", ["init", "bounds", "read"])
def test_kafka_that_is_unreachable_when_it_is_opened_again_is_waited_for(resting: Sums, call: str) -> None:
    """The commit is sealed and waits, as in any outage."""
    for _ in range(3):
        resting.driver.broker.fail_next(call, UnreachableError("away"))
    resting.send(2)
    resting.driver.run()
    rest(resting, 60)
    resting.check()


@pytest.mark.parametrize("happened", [True, False])
def test_a_doubtful_first_commit_is_resolved(resting: Sums, happened: bool) -> None:
    """Its renewal is the second one in a row."""
    resting.driver.broker.fail_next("commit", UnknownOutcomeError("ordered"), after=happened)
    resting.send(2)
    resting.driver.run()
    (task,) = tasks_of(resting)
    assert task._publisher.renewals == 1
    resting.check()


@pytest.mark.parametrize("waiting", [False, True])
def test_a_stop_opens_no_producer_for_a_task_without_open_records(
    resting: Sums, inits: list[Callable[[], object]], waiting: bool
) -> None:
    """The stop of hundreds of tasks would take as long as their start. An owner that ended is not a loss."""
    fences: list[str] = []
    inits.append(lambda: fences.append(ID))
    if waiting:
        resting.send(5)
        resting.driver.worker.step()
    resting.driver.stop()
    assert len(fences) == waiting
    resting.check()
    resting.driver.restart()
    resting.send(2)
    resting.driver.run()
    resting.check()


def test_tasks_move_while_their_producers_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task without a release entry is handed over by the notes alone; a killed owner leaves as little."""
    monkeypatch.setattr(idle_producers, "KEPT", 0)
    monkeypatch.setattr(idle_producers, "IDLE_S", 0.0)
    fleet = Fleet.at_rest("a")
    fleet.run(2 * CHECK_S)
    assert fleet.nodes[0].log_events("idle_producers_closed")
    fleet.start("b")
    fleet.settle()
    assert fleet.owners() == {"a": ANY, "b": ANY}
    fleet.send()
    fleet.settle()
    fleet.run(2 * CHECK_S)
    fleet.kill(fleet.nodes[0])
    fleet.send()
    fleet.settle()
    fleet.check()
