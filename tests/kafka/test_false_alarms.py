"""Under a load of 40, no worker that lives is reported as ended, and the end of one still is, at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.fleet_harness import FleetBench

SECONDS = float(os.environ.get("FALSE_ALARM_S", "600"))
LOAD = 40
TASKS = 6
PARTITIONS = 12

pytestmark = [pytest.mark.kafka, pytest.mark.alarms, pytest.mark.timeout(SECONDS + 600)]


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def test_no_living_worker_is_reported_at_a_load_of_40(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report costs a restore, so a busy machine must not make any. A stopped worker is busy, too."""
    fleet = FleetBench.with_topics(kafka.bootstrap_servers, unique_name, tmp_path, PARTITIONS, TASKS)
    try:
        workers = [fleet.start(name) for name in ("a", "b", "c")]
        fleet.bench.send(600)
        fleet.wait_for_rest()
        with load(LOAD):
            ends_s = time.monotonic() + SECONDS
            number = 0
            while time.monotonic() < ends_s:
                fleet.bench.send(60)
                stopped = workers[number % 3].child
                stopped.send_signal(signal.SIGSTOP)
                time.sleep(1.0)
                stopped.send_signal(signal.SIGCONT)
                time.sleep(4.0)
                number += 1
            alarms = [
                event for worker in workers for event in worker.events("peer_died", "departure_revoked")
            ]
            lost = [event for worker in workers for event in worker.events("peers_stopped")]
        with capsys.disabled():
            print(  # noqa: T201 - a figure for the reader
                f"\n{SECONDS:.0f} s at a load of {LOAD}, {number} stops of 1 s: {len(alarms)} false reports"
            )
        assert alarms == []
        assert lost == []
        fleet.finish()
    finally:
        fleet.close()
