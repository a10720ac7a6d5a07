"""Faust applications under workers that are killed. `test_same_results.py` compares all of them with Faust itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.faust.all_cases import CASES
from tests.support.faust.harness import WorkerRun, run_under_worker

pytestmark = pytest.mark.kafka

KILLS = 3


@pytest.mark.parametrize("name", ["credit_checks"])
def test_an_application_is_exact_in_spite_of_kills(
    name: str, kafka: KafkaUnderTest, unique_name: str, tmp_path: Path
) -> None:
    """Records that are repeated after a crash would grant credit twice."""
    run = WorkerRun(kafka.bootstrap_servers, f"{unique_name[-12:]}-", tmp_path, CASES[name])
    try:
        run_under_worker(run, random.Random(unique_name), KILLS)
    finally:
        run.close()
