"""Killed processes on the real broker: their peers see it long before Kafka's session time-out of 10 s."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.fleet_harness import FleetBench, Process
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.kills]

TASKS = 6
PARTITIONS = 12
WITHIN_S = 6.0  # until the end is noted, on a busy machine; `make bench BENCH=handoff` measures the take-over
SESSION_S = 10.0


@pytest.fixture
def fleet(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[FleetBench]:
    """Topics with six partitions, without a worker."""
    fleet = FleetBench.with_topics(kafka.bootstrap_servers, unique_name, tmp_path, PARTITIONS, TASKS)
    yield fleet
    fleet.close()


def live(fleet: FleetBench, *workers: Process) -> int:
    return sum(len(worker.live_tasks()) for worker in workers)


def died(*workers: Process) -> list[object]:
    return [fields["peer"] for worker in workers for _, _, fields in worker.events("peer_died")]


def wait_for_tasks(fleet: FleetBench, *workers: Process) -> None:
    wait_until(lambda: live(fleet, *workers) == TASKS, fleet.story)


def test_the_end_of_a_killed_process_is_seen_before_kafka_misses_it(fleet: FleetBench) -> None:
    """This is what peers are for."""
    first, second = fleet.start("first"), fleet.start("second")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    fleet.bench.send(600)
    first.child.kill()
    wait_until(lambda: died(second) == ["first"], fleet.story, WITHIN_S)
    wait_for_tasks(fleet, second)
    fleet.bench.send(600)
    fleet.finish()


@pytest.mark.parametrize("also_worker", [False, True])
def test_the_end_of_a_supervisor_is_seen_before_kafka_misses_it(fleet: FleetBench, also_worker: bool) -> None:
    """Its process ends with it; if both are killed, no supervisor can note anything."""
    supervised, other = fleet.start("supervised", supervised=True), fleet.start("other")
    fleet.bench.send(600)
    wait_until(lambda: len(supervised.live_tasks()) == TASKS // 2, fleet.story)
    wait_until(lambda: len(other.live_tasks()) == TASKS // 2, fleet.story)
    if also_worker:
        children = Path(f"/proc/{supervised.child.pid}/task/{supervised.child.pid}/children").read_text()
        for pid in map(int, children.split()):
            os.kill(pid, signal.SIGKILL)
    supervised.child.kill()
    wait_until(lambda: died(other) == ["supervised-1"], fleet.story, WITHIN_S)
    wait_for_tasks(fleet, other)
    fleet.bench.send(600)
    fleet.finish()


def test_a_process_that_is_stopped_for_a_second_is_not_reported(fleet: FleetBench) -> None:
    """A paused machine or a busy one."""
    first, second = fleet.start("first"), fleet.start("second")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    for _ in range(5):
        first.child.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        first.child.send_signal(signal.SIGCONT)
        fleet.bench.send(60)
        time.sleep(0.2)
    assert died(second) == []
    assert not first.events("departure_revoked")
    fleet.finish()


@pytest.mark.timeout(300)
def test_a_process_that_is_stopped_for_a_minute_is_left_to_kafka(fleet: FleetBench) -> None:
    """The session time-out takes its tasks away; no peer reports it, and it continues as a member."""
    first, second = fleet.start("first"), fleet.start("second")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    began = time.monotonic()
    first.child.send_signal(signal.SIGSTOP)
    wait_for_tasks(fleet, second)
    assert time.monotonic() - began > SESSION_S / 2
    time.sleep(max(0.0, began + 60.0 - time.monotonic()))
    first.child.send_signal(signal.SIGCONT)
    fleet.bench.send(600)
    fleet.finish()
    assert died(second) == []


def test_a_worker_that_restarts_on_the_same_port_is_another_process(
    fleet: FleetBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its greeting names it, so nothing has to be refused first."""
    other = fleet.start("other")
    monkeypatch.setenv("PIPELINE_PEER_PORT", str(free_port()))
    first = fleet.start("first")
    fleet.bench.send(600)
    fleet.wait_for_rest()
    for _ in range(3):
        first.child.kill()
        first.child.wait()
        first = fleet.start("first")
        fleet.bench.send(60)
        fleet.wait_for_rest()
    assert not first.events("departure_revoked")
    assert not first.events("peers_not_listening")
    assert set(died(other)) == {"first"}
    fleet.finish()
