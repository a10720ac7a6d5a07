"""A worker process that runs a Faust application on a real Kafka, killed at each step: results stay exact."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.kafka.harness import Workbench

pytestmark = pytest.mark.kafka

APP = "tests.support.faust.sums:app"


@pytest.fixture
def bench(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[Workbench]:
    """The workbench of the sums app, with the Faust application in its place."""
    name = unique_name[-40:].strip("-")
    made = Workbench(kafka.bootstrap_servers, name, tmp_path, groups=("main",), app=APP)
    yield made
    made.close()


def test_kills_at_each_step_of_a_commit_leave_a_faust_application_exact(bench: Workbench) -> None:
    """Each kill leaves another combination of transaction, entry and state."""
    bench.send(100)
    for point in ("AFTER_OUTPUTS", "AFTER_FLUSH", "DURING_COMMIT", "AFTER_COMMIT", "AFTER_APPLY"):
        bench.kill_while_running(point, 1)
    bench.send(100)
    bench.finish()


@pytest.mark.unverified
def test_kills_leave_batches_behind_a_repartition_topic_exact(
    kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """Events that are held when a worker dies are neither lost nor given twice."""
    chance = random.Random(5)
    name = unique_name[-40:].strip("-")
    bench = Workbench(
        kafka.bootstrap_servers, name, tmp_path, groups=("main",), app="tests.support.faust.batches:app"
    )
    try:
        for _ in range(4):
            bench.kill_at_random(chance, 1_000, within=900)
        bench.send(1_000)  # a worker without inputs may not handle signals yet when it is stopped
        worker = bench.worker()
        bench.wait_for_outputs(worker)
        assert bench.stop(worker) == 0
        assert bench.outputs() == bench.expected()
    finally:
        bench.close()


@pytest.mark.kills
def test_kills_at_random_moments_leave_a_faust_application_exact(bench: Workbench) -> None:
    """Also while agents wait and rows are changed in place."""
    chance = random.Random(7)
    for _ in range(6):
        bench.kill_at_random(chance, 3_000, within=2_500)
        bench.reference.check_at_rest(bench.state_dir)
    bench.send(500)
    bench.finish()
