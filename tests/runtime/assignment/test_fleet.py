"""Several workers of one app: who runs what, and that no record knows the difference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.core.names import TaskId, workers_topic
from pipeline.core.notes import Owner, encode_note
from pipeline.errors import UnknownOutcomeError, UnreachableError
from pipeline.runtime.live_task import LiveTask
from pipeline.testing.memory_members import MemoryMembers
from tests.support.runtime.fleet import Fleet, Node


def started(*workers: str, partitions: int = 12) -> Fleet:
    """A fleet at rest that has processed something."""
    fleet = Fleet(partitions)
    for worker in workers:
        fleet.start(worker)
    fleet.send()
    fleet.settle()
    return fleet


def all_live(fleet: Fleet) -> Mapping[TaskId, tuple[Node, LiveTask]]:
    return {task_id: (node, task) for node in fleet.nodes for task_id, task in node.live.items()}


def test_workers_that_start_together_share_the_tasks_without_a_fight() -> None:
    """Who sees only itself at first would take everything, and be fenced for most of it."""
    fleet = Fleet(partitions=12)
    for worker in ("a", "b", "c"):
        fleet.start(worker)
        fleet.run(0.3)
    fleet.send()
    fleet.settle()
    fleet.check()
    assert [len(tasks) for tasks in fleet.owners().values()] == [4, 4, 4]
    assert sum(len(node.log_events("task_live")) for node in fleet.nodes) == 12  # each was restored once


def test_a_worker_that_joins_gets_its_share_and_the_others_never_stop() -> None:
    """Every move is a pause: only what the new worker gets may move, by a release and not by a fence."""
    fleet = started("a", "b", "c", partitions=64)
    before = all_live(fleet)
    fleet.start("d")
    for _ in range(10):
        fleet.send()
        fleet.run(1.0)
    fleet.settle()
    fleet.check()
    moved = [task for task, (node, _) in all_live(fleet).items() if node.worker_id == "d"]
    assert len(moved) == 16
    for task_id, (node, task) in before.items():
        if task_id not in moved:
            assert all_live(fleet)[task_id] == (node, task)  # the very same one: it was never restored
    assert not any(node.log_events("task_fenced") for node in fleet.nodes)
    copied = fleet.nodes[-1].log_events("standby_ready")
    assert sorted(str(event["task"]) for event in copied) == sorted(str(task.number) for task in moved)
    assert {event["restored_from"] for event in copied} == {"an empty state"}  # there are no checkpoints


def test_the_tasks_of_a_killed_worker_are_taken_over_and_the_others_never_stop() -> None:
    """Kafka misses it after the session time-out; nothing else waits for it."""
    fleet = started("a", "b", "c")
    before = all_live(fleet)
    victim = fleet.nodes[1]
    lost = set(victim.live)
    fleet.send()
    fleet.run(0.1)
    fleet.kill(victim)
    fleet.send()
    fleet.run(9.0)
    assert set(all_live(fleet)) == before.keys() - lost
    fleet.settle()
    fleet.check()
    for task_id in before.keys() - lost:
        assert all_live(fleet)[task_id] == before[task_id]


@pytest.mark.parametrize("listed_still", [False, True])
def test_a_worker_that_is_stopped_hands_its_tasks_over_at_once(
    listed_still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It releases its tasks and leaves the group, so the others do not wait for a timeout."""
    if listed_still:
        monkeypatch.setattr(MemoryMembers, "leave", lambda _self: None)
    fleet = started("a", "b")
    fleet.stop(fleet.nodes[0])
    fleet.send()
    fleet.run(4.0)
    assert len(fleet.nodes[1].live) == 12
    fleet.settle()
    fleet.check()


def test_a_stop_while_kafka_is_away_does_not_wait_for_a_task_that_was_leaving_already() -> None:
    """It was given up to another worker when the outage began; a deployment must not wait for the end of that."""
    fleet = started("a")
    node = fleet.nodes[0]
    task = next(iter(node.live))
    fleet.send()
    while not node.live[task].records:
        fleet.turn()
    run = node.worker.runs[0]
    run.release(task.number)
    fleet.broker.fail_next("commit", UnknownOutcomeError("no answer"), where=task.transactional_id)
    for _ in range(100):
        fleet.broker.fail_next("init", UnreachableError("away"), where=task.transactional_id)
    (failure,) = fleet.stop(node)
    assert isinstance(failure, UnreachableError)
    assert len(fleet.broker.faults.left()) > 90


def test_a_restarted_worker_takes_its_tasks_back_before_it_was_missed() -> None:
    """Its ghost is still listed; a restart in place is the most common event of all."""
    fleet = started("a", "b", "c")
    victim = fleet.nodes[2]
    had = set(victim.live)
    fleet.kill(victim)
    again = fleet.start("c", stores=victim.stores)
    fleet.run(2.0)
    assert set(again.live) == had
    fleet.send()
    fleet.settle()
    fleet.check()


def test_a_worker_that_wakes_up_after_its_tasks_were_taken_writes_nothing_and_rejoins() -> None:
    """A paused machine, a long collection: it finds out by the fence, drops the tasks, and is a worker again."""
    fleet = started("a", "b", "c")
    zombie = fleet.nodes[0]
    fleet.send()
    zombie.worker.step()  # records are processed, their commits are not yet due
    zombie.paused = True
    fleet.run(15.0)
    assert sum(len(node.live) for node in fleet.nodes[1:]) == 12
    fleet.send()
    fleet.run(1.0)
    zombie.paused = False
    fleet.send()
    fleet.run(5.0)
    fleet.settle()
    fleet.check()
    assert zombie.log_events("task_taken_over")


def test_a_note_that_comes_late_does_not_turn_owners_back() -> None:
    """A worker that wakes up says what was true when it fell asleep; and a newcomer hears the right thing, too."""
    fleet = started("a", "b")
    late, other = fleet.nodes
    before = dict(late.live)
    stale = Owner(1, "b", other.worker._lifecycle.ownership.me.process)
    notes = [encode_note(task_id, stale) for task_id in before]
    MemoryMembers(fleet.broker, fleet.clock).announce(workers_topic("sums"), notes)
    fleet.run(10.0)
    assert late.live == before
    newcomer = fleet.start("c")
    fleet.run(0.5)
    fleet.settle()
    heard = newcomer.worker._lifecycle.ownership._watch._last_read
    assert {task: heard[task].worker for task in before} == {
        task: node.worker_id for node in fleet.nodes for task in node.live if task in before
    }
    assert not any(node.log_events("task_fenced") for node in fleet.nodes)


def test_a_worker_that_keeps_a_task_is_not_waited_for_forever() -> None:
    """It is a member and says it has the task; a bug or a full disk may keep it from letting go."""
    fleet = started("a")
    fleet.nodes[0].worker._lifecycle.ownership._decide = lambda _places: {}  # type: ignore[method-assign,assignment]
    fleet.start("b")
    fleet.send()
    fleet.run(45.0)
    assert len(fleet.nodes[1].live) == 6
    assert fleet.nodes[1].log_events("task_not_released")


def test_of_two_processes_with_one_worker_id_the_older_one_leaves() -> None:
    """With a copied configuration, two workers with one id would fence each other again and again."""
    fleet = started("a", "b")
    older = fleet.nodes[0]
    fleet.clock.advance(0.01)
    fleet.start("a")
    for _ in range(10):
        fleet.send()
        fleet.run(2.0)
    assert older.ended
    assert older.worker.displaced is not None
    assert older.worker.displaced.message.startswith("a newer process, started at ")
    assert not older.worker.failures
    fleet.settle()
    fleet.check()


def test_workers_of_another_version_wait_until_the_last_of_the_old_one_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two versions that compute different rings: never two answers to who runs a task."""
    fleet = started("a", "b")
    monkeypatch.setattr("pipeline.core.membership.RING_VERSION", 99)
    newer = [fleet.start("c"), fleet.start("d")]
    monkeypatch.undo()
    fleet.send()
    fleet.run(20.0)
    assert not any(node.live for node in newer)
    assert newer[0].log_events("waiting_for_other_version")
    for node in fleet.nodes[:2]:
        fleet.stop(node)
    fleet.run(5.0)
    assert sorted(len(node.live) for node in newer) == [6, 6]
