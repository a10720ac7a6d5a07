"""Worker processes that share an app on the real broker: they join, stop, crash, pause and resume."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka import long_session
from tests.support.kafka.fleet_harness import FleetBench, Watcher
from tests.support.kafka.harness import DEADLINE_S
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

TASKS = 6
PARTITIONS = 12


@pytest.fixture
def fleet(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[FleetBench]:
    """Topics with six partitions, without a worker."""
    fleet = FleetBench.with_topics(kafka.bootstrap_servers, unique_name, tmp_path, PARTITIONS, TASKS)
    yield fleet
    fleet.close()


def wait_for(condition: Callable[[], bool], fleet: FleetBench) -> None:
    wait_until(condition, fleet.story)


def test_a_worker_that_joins_gets_its_share_and_one_that_stops_gives_its_share_back(
    fleet: FleetBench,
) -> None:
    """Rolling deployments consist of these steps, which must neither wait for a time-out nor fence a worker."""
    fleet.program = long_session.__name__
    fleet.bench.send(600)
    first = fleet.start("first")
    wait_for(lambda: len(first.live_tasks()) == TASKS, fleet)
    second = fleet.start("second")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    fleet.bench.send(600)
    first.child.send_signal(signal.SIGTERM)
    assert first.child.wait(DEADLINE_S) == 0
    wait_for(lambda: len(second.live_tasks()) == TASKS, fleet)
    [(stopped_s, _, _)] = first.events("worker_stopped")
    taken_s = max(at for at, _, _ in second.events("task_live"))
    # The session time-out is after the last heartbeat, and heartbeats are 2 s apart.
    assert taken_s - stopped_s < long_session.SESSION_S - 2.0, fleet.story()
    assert not first.events("task_fenced")
    assert not second.events("task_fenced")
    fleet.finish()


def test_a_worker_that_sleeps_through_the_loss_of_its_tasks_writes_nothing_and_rejoins(
    fleet: FleetBench,
) -> None:
    """A zombie with an open transaction must be fenced, drop its tasks, and get its share again."""
    zombie, other = fleet.start("zombie"), fleet.start("other")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    had = zombie.live_tasks()
    fleet.bench.send(2_000)
    zombie.child.send_signal(signal.SIGSTOP)
    wait_for(lambda: len(other.live_tasks()) == TASKS, fleet)
    fleet.bench.send(600)
    fleet.bench.wait_for_outputs(other.child)
    before = fleet.bench.outputs()
    zombie.child.send_signal(signal.SIGCONT)
    # It may have claimed a task again before it reads that the other one has it.
    wait_for(lambda: zombie.lost_tasks() >= had, fleet)
    assert fleet.bench.outputs() == before
    fleet.bench.send(600)
    fleet.finish()


def test_of_two_processes_with_one_worker_id_the_older_one_leaves_with_a_clear_error(
    fleet: FleetBench,
) -> None:
    """With one configuration on two hosts, the processes must not fence each other forever."""
    older = fleet.start("same", state="one")
    fleet.bench.send(300)
    wait_for(lambda: len(older.live_tasks()) == TASKS, fleet)
    newer = fleet.start("same", state="two")
    fleet.bench.send(300)
    assert older.child.wait(DEADLINE_S) == 5
    assert "a newer process, started at " in older.log.read_text()
    assert "--worker-id" in older.log.read_text()
    wait_for(lambda: len(newer.live_tasks()) == TASKS, fleet)
    fleet.finish()


@pytest.mark.kills
def test_states_of_tasks_that_moved_are_removed_and_can_be_had_again(
    fleet: FleetBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk must not fill with the states of other workers' tasks, and a task that returns is restored."""
    monkeypatch.setenv("PIPELINE_STATE_CLEANUP_DELAY_S", "2")
    states = tmp_path / "disks" / "first" / fleet.bench.prefix / "main"

    def held() -> set[str]:
        return {path.name for path in states.iterdir() if not path.name.startswith(".")}

    first = fleet.start("first")
    fleet.bench.send(600)
    wait_for(lambda: len(first.live_tasks()) == TASKS, fleet)
    second = fleet.start("second")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    wait_for(lambda: held() == {task.rpartition("/")[2] for task in first.live_tasks()}, fleet)
    assert len(first.events("local_state_deleted")) == TASKS // 2
    wait_for(lambda: not list(states.glob(".removed/*")), fleet)
    second.child.kill()
    fleet.bench.send(600)
    wait_for(lambda: len(first.live_tasks()) == TASKS, fleet)
    fleet.finish()


def test_random_faults_under_load_leave_everything_exact(
    fleet: FleetBench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random kills, stops and restarts of three workers find orders of events that no other test has."""
    _trouble(fleet, capsys, faults=4, seed=time.time_ns() % 100_000)


@pytest.mark.kills
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_twenty_random_faults_under_load_leave_everything_exact(
    fleet: FleetBench, capsys: pytest.CaptureFixture[str], seed: int | None
) -> None:
    """A longer run finds rarer orders of events."""
    _trouble(fleet, capsys, faults=20, seed=seed if seed is not None else time.time_ns() % 100_000)


def _trouble(fleet: FleetBench, capsys: pytest.CaptureFixture[str], faults: int, seed: int) -> None:
    chance = random.Random(seed)
    for name in ("a", "b", "c"):
        fleet.start(name)
    fleet.bench.send(300)
    fleet.wait_for_rest()
    ended = threading.Event()

    def load() -> None:
        while not ended.wait(0.05):
            fleet.bench.send(60)

    loader = threading.Thread(target=load)
    with Watcher(fleet.bench.servers, f"{fleet.bench.prefix}-sums", PARTITIONS) as watcher:
        loader.start()
        try:
            for _ in range(faults):
                _fault(fleet, chance)
            time.sleep(1.0)
        finally:
            ended.set()
            loader.join()
        fleet.finish()
    here, moved = watcher.pauses(fleet)
    with capsys.disabled():
        print(  # noqa: T201 - a figure for the reader
            f"\n{faults} faults, seed {seed}, {len(fleet.bench.sent):,} records: longest pause of a task that stayed "
            f"{here:.2f} s, of one that was taken up again {moved:.2f} s"
        )


def _fault(fleet: FleetBench, chance: random.Random) -> None:
    """Inject a fault: a kill with or without a restart, or a stop and a start, on the same disk or an empty one."""
    victim = chance.choice(fleet.alive())
    kill, at_once, empty = chance.random() < 0.6, chance.random() < 0.6, chance.random() < 0.3
    victim.child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    victim.child.wait(DEADLINE_S)
    if not at_once:
        fleet.wait_for_rest()
    fleet.start(victim.worker, empty_disk=empty)
    if chance.random() < 0.7:
        fleet.wait_for_rest()
    else:
        time.sleep(chance.uniform(0.0, 2.0))
