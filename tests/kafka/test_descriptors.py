"""The limit on open files, on a real worker process."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.processes.system import Demand
from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import Workbench
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kafka

TASKS = 24
_LIMITED = """
import os, resource, sys

soft, hard = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


@pytest.fixture
def wide(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """A bench with many tasks of one group."""
    bench = Workbench(
        kafka.bootstrap_servers, unique_name[-40:].strip("-"), tmp_path, groups=("main",), partitions=TASKS
    )
    yield bench
    bench.close()


def test_a_worker_opens_as_many_files_as_the_formula_says(wide: Workbench) -> None:
    """A new client version may open more files, and the formula would then allow too few."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > Demand(TASKS, 1, 1).descriptors
    wide.send(10 * TASKS, keys=10 * TASKS)
    worker = wide.worker()
    files = Path(f"/proc/{worker.pid}/fd")
    most = 0

    def live() -> bool:
        nonlocal most
        most = max(most, len(list(files.iterdir())))
        return wide.log.read_text().count("task_live") >= TASKS

    wait_until(live, wide.log.read_text)
    wide.wait_for_outputs(worker)
    most = max(most, len(list(files.iterdir())))
    assert Demand(TASKS, 1, 1).descriptors / 3 < most <= Demand(TASKS, 1, 1).descriptors
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    soft, hard = re.findall(r"Max open files +(\d+) +(\d+)", limits)[0]
    assert soft == hard
    assert wide.stop(worker) == 0


def test_a_worker_that_may_not_open_enough_files_is_refused(wide: Workbench) -> None:
    """Otherwise the worker would fail later, and report that Kafka is unreachable."""
    worker = [
        "worker",
        "tests.support.kafka.sums:app",
        "--kafka",
        wide.servers,
        "--state-dir",
        str(wide.state_dir),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, "64", "256", "-m", "pipeline", *worker],
        env={**os.environ, "SUMS_PREFIX": wide.prefix, "SUMS_GROUPS": "main"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert f"has {TASKS} tasks on 1 broker" in done.stderr
    assert "this process may have 256" in done.stderr
    assert f"ulimit -n {Demand(TASKS, 1, 1).descriptors}" in done.stderr
