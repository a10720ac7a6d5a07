"""The same applications under Faust, undisturbed, and under workers that are killed: the results are the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.faust.all_cases import CASES
from tests.support.faust.harness import FaustRun, WorkerRun, run_under_faust, run_under_worker

pytestmark = [pytest.mark.kafka, pytest.mark.faust]

KILLS = 6


@pytest.mark.parametrize("name", sorted(CASES))
def test_results_under_faust_and_under_killed_workers_are_equal(
    name: str, kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """Both are compared with an oracle, which therefore says what Faust does; then with each other, byte by byte."""
    case, seed, prefix = CASES[name], random.randrange(2**32), unique_name[-8:]
    faust = FaustRun(kafka.bootstrap_servers, f"f{prefix}-", tmp_path / "faust", case)
    ours = WorkerRun(kafka.bootstrap_servers, f"w{prefix}-", tmp_path / "ours", case)
    try:
        run_under_faust(faust, random.Random(seed))
        run_under_worker(ours, random.Random(seed), KILLS)
        if not case.sends:
            assert ours.bytes_of_outputs() == faust.bytes_of_outputs(), f"seed {seed}"
    finally:
        faust.close()
        ours.close()
