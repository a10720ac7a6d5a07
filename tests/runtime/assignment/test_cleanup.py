"""States of tasks that have moved: removed when they are another's for long enough, and only then."""

from __future__ import annotations

import pytest

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId, workers_topic
from pipeline.core.notes import Owner, encode_note
from pipeline.errors import ConfigError
from pipeline.runtime.assignment.cleanup import StateCleanup
from pipeline.testing.memory_members import MemoryMembers
from tests.runtime.assignment.test_random_fleet import live_through_troubles
from tests.support.runtime.fleet import Fleet, Node

DELAY_S = 60.0


def moved(delay_s: float = DELAY_S) -> Fleet:
    """Some tasks have just moved from worker a to worker b, and left their state with a."""
    fleet = Fleet(partitions=6, settings=WorkerSettings(state_cleanup_delay_s=delay_s))
    fleet.start("a")
    fleet.send()
    fleet.settle()
    fleet.start("b")
    fleet.settle()
    fleet.send()
    fleet.run(1.0)
    assert states(fleet, fleet.nodes[0]) == set(range(6))
    return fleet


def states(fleet: Fleet, node: Node) -> set[int]:
    return {p for p in range(fleet.partitions) if node.stores.exists(TaskId("sums", "main", p))}


def test_a_state_is_removed_when_its_task_has_been_elsewhere_for_the_delay() -> None:
    """Otherwise it would never be removed; the state of a running task is kept."""
    fleet = moved()
    a, b = fleet.nodes
    fleet.run(DELAY_S + 15.0)
    assert states(fleet, a) == {task.number for task in a.live}
    assert states(fleet, b) == {task.number for task in b.live}
    assert {said["owner"] for said in a.log_events("local_state_deleted")} == {"b"}
    fleet.stop(b)
    fleet.send()
    fleet.settle()  # and what is gone can be had again
    fleet.check()


def test_a_state_waits_for_its_task_until_the_delay_is_over() -> None:
    """A worker that is restarted gets its tasks back, and then their states spare it a restore."""
    fleet = moved()
    a, b = fleet.nodes
    fleet.run(20.0)
    assert states(fleet, a) == set(range(6))
    fleet.kill(b)
    fleet.run(DELAY_S + 10.0)  # a has them all again, or nobody has them: no reason to remove anything
    assert states(fleet, a) == set(range(6))
    assert not a.log_events("local_state_deleted")
    fleet.settle()
    fleet.check()


def test_nothing_is_removed_with_a_delay_of_zero() -> None:
    """An operator with enough disk space may prefer fast returns of tasks."""
    fleet = moved(delay_s=0.0)
    fleet.run(60.0)
    assert states(fleet, fleet.nodes[0]) == set(range(6))


def test_the_state_of_a_task_without_an_owner_is_kept() -> None:
    """Its next owner may be this worker, and no other disk has a newer state."""
    fleet = moved()
    a, b = fleet.nodes
    fleet.stop(a)
    a_again = fleet.start("a", stores=a.stores)
    fleet.settle()
    b.worker._lifecycle.failures.update(dict.fromkeys(b.live, ConfigError("a test ends it")))
    for run in b.worker.runs:
        for task in list(run.tasks.values()):
            b.worker._lifecycle._fail(run, task.id, ConfigError("a test ends it"), seq=task.applied.seq)
    fleet.run(DELAY_S + 15.0)
    assert not a_again.log_events("local_state_deleted")


def test_a_note_alone_removes_nothing() -> None:
    """Notes are hints, and anybody could have written them: the journal must name the same owner."""
    fleet = Fleet(partitions=2, settings=WorkerSettings(state_cleanup_delay_s=DELAY_S))
    a = fleet.start("a")
    fleet.send()
    fleet.settle()
    b = fleet.start("b")
    fleet.settle()
    [theirs] = [task.number for task in b.live]
    note = Owner(1_000_000, "b", b.worker._lifecycle.ownership.me.process)
    lies = [encode_note(TaskId("sums", "main", theirs), note)]
    MemoryMembers(fleet.broker, fleet.clock).announce(workers_topic("sums"), lies)
    fleet.run(DELAY_S + 15.0)
    assert states(fleet, a) == {0, 1}
    assert not a.log_events("local_state_deleted")


@pytest.mark.parametrize("came_back", [False, True])
def test_a_state_whose_task_came_back_while_the_journal_was_asked_is_kept(came_back: bool) -> None:
    """A restore may be about to open it."""
    fleet = moved()
    a, b = fleet.nodes
    task = next(iter(b.live))
    cleanup = StateCleanup([task], "a", a.worker.environment, delay_s=1.0)
    roster = a.worker._lifecycle.ownership._watch.roster
    cleanup.turn(set, roster)
    fleet.clock.advance(7.0)
    cleanup.turn(set, roster)
    while a.executor.run_one():
        pass
    cleanup.turn(lambda: {task} if came_back else set(), roster)
    assert a.stores.exists(task) == came_back


def test_a_state_that_is_open_somewhere_is_kept_and_said_so() -> None:
    """Another process may look at it."""
    fleet = moved()
    a = fleet.nodes[0]
    away = states(fleet, a) - {task.number for task in a.live}
    opened = a.stores.open(TaskId("sums", "main", min(away)))
    fleet.run(DELAY_S + 15.0)
    assert min(away) in states(fleet, a)
    assert a.log_events("local_state_not_deleted")
    opened.close()
    fleet.run(DELAY_S + 15.0)
    assert states(fleet, a) == {task.number for task in a.live}


def test_a_state_that_cannot_be_read_is_kept_and_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of another worker's task must not end this worker."""
    fleet = moved()
    a = fleet.nodes[0]
    away = states(fleet, a) - {task.number for task in a.live}
    unreadable = TaskId("sums", "main", min(away))
    exists = a.stores.exists

    def denied(task: TaskId) -> bool:
        if task == unreadable:
            raise ConfigError(f"the state of task {task} cannot be read: Permission denied")
        return exists(task)

    monkeypatch.setattr(a.stores, "exists", denied)
    fleet.run(DELAY_S + 15.0)
    [said] = a.log_events("local_state_not_deleted")
    assert "Permission denied" in str(said["message"])
    monkeypatch.undo()
    assert states(fleet, a) == {task.number for task in a.live} | {unreadable.number}


@pytest.mark.parametrize("seed", range(4))
def test_removals_in_a_troubled_fleet_lose_no_record(seed: int) -> None:
    """States vanish while tasks come and go, workers are killed, paused and started again."""
    settings = WorkerSettings(state_cleanup_delay_s=0.2)
    fleet = Fleet(partitions=7, seed=seed, settings=settings)
    live_through_troubles(fleet, fleet.random)
    fleet.check()
    fleet.run(20.0)
    for node in fleet.nodes:
        if not node.ended:
            assert states(fleet, node) == {task.number for task in node.live}
