"""Random histories of a fleet: workers come, die, sleep and wake up, requests fail, and no record knows it."""

from __future__ import annotations

import random

import pytest

from pipeline import Dedup
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.errors import AbortableError, FencedError, UnknownOutcomeError, UnreachableError
from pipeline.ops.checkpoints import inventory_of, verify
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.fleet import Fleet

# Partitions and tasks of the group: in half of the histories, tasks own several partitions.
SHAPES = [(1, 1), (3, 3), (7, 7), (3, 1), (7, 3), (8, 2)]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_to_workers_no_record_is_lost_or_doubled(seed: int) -> None:
    """Joins, kills, stops, pauses and restarts in any order; at the end everything is where it belongs."""
    chance = random.Random(seed)
    partitions, tasks = chance.choice(SHAPES)
    fleet = Fleet(partitions, tasks=tasks, seed=seed)
    live_through_troubles(fleet, chance)
    fleet.check()


@pytest.mark.parametrize("seed", range(100, 140))
def test_whatever_happens_to_workers_with_checkpoints_no_record_is_lost_or_doubled(seed: int) -> None:
    """As before, while journals are truncated; at the end all disks are lost, too.

    A worker that was paused continues to delete and truncate, though other workers have its tasks by then.
    """
    chance = random.Random(seed)
    settings = WorkerSettings(
        checkpoint_store="memory",
        checkpoint_interval_s=chance.choice([0.3, 2.0]),
        checkpoint_journal_bytes=chance.choice([1, 1_500, 10_000]),
        checkpoint_grace_s=chance.choice([0.0, 3.0]),
    )
    partitions, tasks = chance.choice(SHAPES)
    fleet = Fleet(partitions, tasks=tasks, seed=seed, settings=settings)
    live_through_troubles(fleet, chance)
    fleet.check()
    for node in fleet.nodes:
        if not node.ended:
            fleet.kill(node)
    last = fleet.start("on-an-empty-disk")
    fleet.send()
    fleet.settle(within_s=200)
    fleet.check()
    assert last.log_events("checkpoint_refused") == []
    check_checkpoints(fleet)


@pytest.mark.parametrize("seed", range(200, 212))
def test_whatever_happens_to_workers_and_to_their_requests_no_record_is_lost_or_doubled(seed: int) -> None:
    """Tasks move while commits are aborted, in doubt or timed out, and while inputs are sent again."""
    chance = random.Random(seed)
    partitions, tasks = chance.choice(SHAPES)
    fleet = Fleet(partitions, tasks=tasks, seed=seed, dedup=Dedup(ttl_s=3600))
    live_through_troubles(fleet, chance, with_requests=True)
    fleet.check()


@pytest.mark.parametrize("seed", range(300, 325))
def test_a_stale_leader_loses_and_duplicates_no_record(seed: int) -> None:
    """A third of all clients ask a broker that answers as of an earlier moment, while tasks move and commits fail."""
    chance = random.Random(seed)
    settings = WorkerSettings(
        checkpoint_store=chance.choice(["", "memory"]),
        checkpoint_interval_s=0.5,
        checkpoint_journal_bytes=1_500,
    )
    partitions, tasks = chance.choice(SHAPES)
    fleet = Fleet(partitions, tasks=tasks, seed=seed, settings=settings, dedup=Dedup(ttl_s=3600))
    fleet.start("first")  # so that the stale leader knows all topics
    live_through_troubles(fleet, chance, with_requests=True, with_stale_leader=True)
    fleet.check()
    for node in fleet.nodes:
        if not node.ended:
            fleet.kill(node)
    fleet.start("on-an-empty-disk")
    fleet.send()
    fleet.settle(within_s=200)
    fleet.check()


def check_checkpoints(fleet: Fleet) -> None:
    """Whichever worker deleted and truncated: all data that the journals refer to is complete."""
    reader, store = MemoryJournalReader(fleet.broker), fleet.checkpoints
    for number in range(fleet.tasks):
        task = TaskId("sums", "main", number)
        found = inventory_of(task, fleet.broker.cluster_id, reader, store, fleet.clock.wall_ms(), 0.0)
        found = verify(found, store, lambda _size: None)
        assert [holding.problem for holding in found.holdings] == [None] * len(found.holdings)
        assert found.restorable


def fail_a_request(fleet: Fleet, chance: random.Random) -> None:
    """The next call of this kind fails, by any worker; or a task's transaction times out."""
    unknown, abort = UnknownOutcomeError("no answer"), AbortableError("must be aborted")
    call, error, happened = chance.choice(
        [
            ("commit", unknown, True),
            ("commit", unknown, False),
            ("commit", FencedError("a time-out, or a newer owner"), False),
            ("flush", abort, False),
            ("append", abort, False),
            ("abort", unknown, False),
            ("init", UnreachableError("away"), False),
            ("bounds", UnreachableError("away"), False),
        ]
    )
    fleet.broker.fail_next(call, error, after=happened)
    if chance.random() < 0.2:
        fleet.broker.expire(TaskId("sums", "main", chance.randrange(fleet.tasks)).transactional_id)


def live_through_troubles(
    fleet: Fleet, chance: random.Random, *, with_requests: bool = False, with_stale_leader: bool = False
) -> None:
    """Eleven events, with input before each; then everybody who is left comes to rest.

    `with_requests`: theirs fail on the way, and inputs are sent again. `with_stale_leader`: a broker loses its
    controllers from time to time, and keeps answering some clients.
    """
    fleet.start("w0")
    for number in range(1, 12):
        awake = [node for node in fleet.nodes if not (node.paused or node.ended)]
        paused = [node for node in fleet.nodes if node.paused]
        fleet.broker.faults._ordered.clear()  # one that meets the start of a process ends it, as it should
        match chance.choice(["start", "kill", "stop", "pause", "resume", "restart", "work", "work"]):
            case "start" if len(awake) < 4:
                fleet.start(f"w{number}")
            case "kill" if awake:
                fleet.kill(chance.choice(awake))
            case "stop" if len(awake) > 1:
                fleet.stop(chance.choice(awake))
            case "pause" if awake:
                chance.choice(awake).paused = True
            case "resume" if paused:
                chance.choice(paused).paused = False
            case "restart" if awake:
                victim = chance.choice(awake)
                fleet.kill(victim)
                fleet.start(victim.worker_id, stores=chance.choice([victim.stores, None]))
        if with_stale_leader and (event := chance.random()) < 0.5:  # else it stays as it is
            fleet.broker.heal()
            if event < 0.4:
                fleet.broker.add_stale_leader(lambda: chance.random() < 1 / 3)
        fleet.send()
        if with_requests:
            fail_a_request(fleet, chance)
            fleet.sums.send_again(chance.choices(range(len(fleet.sums.sent)), k=3))
        fleet.run(chance.choice([0.05, 0.3, 1.0, 4.0, 12.0]))
    fleet.broker.faults._ordered.clear()
    fleet.broker.heal()
    for node in fleet.nodes:
        node.paused = False
    if not any(not node.ended for node in fleet.nodes):
        fleet.start("last")
    fleet.settle(within_s=200)
