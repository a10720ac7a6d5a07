"""Workers that watch each other: a death is taken over at once, and a mistake costs a restore but never a result."""

from __future__ import annotations

import random
from types import UnionType
from typing import Any

import pytest

from pipeline import Dedup
from pipeline.core.departures import IMMUNITY_S, Departure, PeerAddress, Revocation
from pipeline.core.names import workers_topic
from pipeline.core.notes import decode_note, encode_note
from pipeline.errors import UnreachableError
from pipeline.testing.memory_members import MemoryMembers
from tests.runtime.assignment.test_random_fleet import live_through_troubles
from tests.support.runtime.fleet import Fleet, Node


def watching(*workers: str, partitions: int = 6) -> Fleet:
    """A fleet at rest whose workers watch each other."""
    fleet = Fleet(partitions, watching=True)
    for worker in workers:
        fleet.start(worker)
    fleet.send()
    fleet.settle()
    return fleet


def notes(fleet: Fleet, kind: type | UnionType) -> list[Any]:
    found: list[Any] = []
    for record in fleet.broker.records(workers_topic("sums")):
        note = decode_note("sums", record.value() or b"")
        if note is not None and isinstance(note[1], kind):
            found.append(note[1])
    return found


def live_tasks(fleet: Fleet) -> int:
    return sum(len(node.live) for node in fleet.nodes)


def accuse(fleet: Fleet, node: Node) -> None:
    """Watchers believe that it has ended, and every worker reads that."""
    fleet.network.accuse(node.process)
    fleet.run(0.5)


@pytest.mark.parametrize("together", [1, 2])
def test_the_tasks_of_killed_workers_are_taken_over_at_once(together: int) -> None:
    """Kafka would remove them only after its session time-out of 10 s."""
    fleet = watching("a", "b", "c")
    for node in fleet.nodes[:together]:
        fleet.kill(node)
    fleet.send()
    fleet.run(3.0)
    assert live_tasks(fleet) == 6
    fleet.settle()
    fleet.check()


def test_a_stopped_worker_is_not_reported_and_kafka_decides() -> None:
    """Its connections stay, and it may continue at any moment."""
    fleet = watching("a", "b", "c")
    fleet.nodes[0].paused = True
    fleet.run(5.0)
    assert notes(fleet, Departure) == []
    fleet.run(10.0)
    fleet.nodes[0].paused = False
    fleet.settle()
    fleet.check()
    assert notes(fleet, Departure) == []


def test_a_death_is_noted_at_most_once_by_each_watcher() -> None:
    """The note says by whom, and for which number of revocations. A watcher that has read one writes none."""
    fleet = watching("a", "b", "c", "d")
    victim = fleet.nodes[0]
    fleet.kill(victim)
    fleet.run(1.0)
    found = notes(fleet, Departure)
    assert 1 <= len(found) <= 2
    assert all(
        isinstance(each, Departure) and (each.process, each.number) == (victim.process, 0) and each.by
        for each in found
    )


def test_a_worker_that_is_reported_dead_revokes_this_and_gets_its_share_again() -> None:
    """The mistake costs a restore."""
    fleet = watching("a", "b", "c")
    accused = fleet.nodes[0]
    accuse(fleet, accused)
    fleet.send()
    fleet.settle()
    fleet.check()
    assert notes(fleet, Revocation)
    assert len(accused.live) == 2


def test_a_worker_that_has_revoked_its_departure_is_immune_for_a_time() -> None:
    """A device that ends living connections must not move tasks again and again."""
    fleet = watching("a", "b", "c")
    accused = fleet.nodes[0]
    accuse(fleet, accused)
    fleet.settle()
    assert fleet.network.watchers_of(accused.process) == 0
    before = len(notes(fleet, Departure))
    accuse(fleet, accused)
    fleet.run(IMMUNITY_S)
    assert len(notes(fleet, Departure)) == before
    assert fleet.network.watchers_of(accused.process) == 2
    fleet.kill(accused)
    fleet.run(3.0)
    assert live_tasks(fleet) == 6
    fleet.check()


def test_a_late_departure_is_void_and_is_revoked_for_those_who_start_later() -> None:
    """A second watcher may write its note after the revocation, and compaction keeps only the last one."""
    fleet = watching("a", "b")
    accused = fleet.nodes[0]
    accuse(fleet, accused)
    fleet.settle()
    late = encode_note(None, Departure("a", accused.process, "x", 0))
    before = dict(accused.live)
    MemoryMembers(fleet.broker, fleet.clock).announce(workers_topic("sums"), [late])
    fleet.run(1.0)
    assert dict(accused.live) == before
    last = [note for note in notes(fleet, Departure | Revocation) if note.worker == "a"][-1]
    assert isinstance(last, Revocation)
    fleet.settle()
    fleet.check()


def test_a_clean_stop_is_not_revoked_and_not_reported() -> None:
    """The process notes its own departure before it closes its port."""
    fleet = watching("a", "b")
    fleet.stop(fleet.nodes[0])
    fleet.run(2.0)
    assert [each.by for each in notes(fleet, Departure)] == [""]
    assert len(fleet.nodes[1].live) == 6


def test_a_worker_says_whether_it_is_watched() -> None:
    """`pipeline status` names those whose end only Kafka would detect."""
    fleet = watching("a")
    assert {each.watched for each in notes(fleet, PeerAddress)} == {False}
    fleet.start("b")
    fleet.run(10.0)
    found = {each.worker: each.watched for each in notes(fleet, PeerAddress)}
    assert found == {"a": True, "b": True}


def test_a_death_that_cannot_be_noted_is_left_to_kafka() -> None:
    """While Kafka is unreachable, no task can be taken over anyway."""
    fleet = watching("a", "b")
    for _ in range(100):
        fleet.broker.fail_next("announce", UnreachableError("away"))
    fleet.kill(fleet.nodes[0])
    fleet.run(1.0)
    fleet.broker.faults._ordered.clear()
    fleet.run(2.0)
    assert notes(fleet, Departure) == []
    fleet.settle()
    fleet.check()


def test_workers_with_and_without_watching_share_an_app() -> None:
    """During an update, older workers neither listen nor know the notes."""
    fleet = watching("a", "b")
    fleet.watching = False
    fleet.start("old")
    fleet.send()
    fleet.settle()
    fleet.kill(fleet.nodes[0])
    fleet.run(3.0)
    assert live_tasks(fleet) == 6
    fleet.check()


@pytest.mark.parametrize("seed", range(400, 430))
def test_false_alarms_in_any_history_lose_and_duplicate_no_record(seed: int) -> None:
    """The fence decides who may write, whatever the watchers believe."""
    chance = random.Random(seed)
    fleet = Fleet(chance.choice([1, 3, 7]), seed, watching=True, dedup=Dedup(ttl_s=3600))
    turn = fleet.turn

    def with_alarms() -> None:
        living = [node for node in fleet.nodes if not node.ended]
        if living and chance.random() < 0.02:
            fleet.network.accuse(chance.choice(living).process)
        turn()

    fleet.turn = with_alarms  # type: ignore[method-assign]
    live_through_troubles(fleet, chance, with_requests=True)
    fleet.check()
