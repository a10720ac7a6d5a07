"""A worker process on a real Kafka, ended by SIGKILL: outputs and tables stay exact."""

from __future__ import annotations

import random
import signal

import pytest

from tests.kafka.workbench import Workbench

pytestmark = pytest.mark.kafka


def test_kills_at_random_moments_leave_outputs_and_tables_exact(bench: Workbench) -> None:
    """What the product promises, on the same state several times in a row."""
    chance = random.Random(7)
    for _ in range(3):
        done = len(bench.sent)
        bench.send(3_000)
        worker = bench.worker("--commit-interval-ms", "5")
        bench.wait_for_outputs(worker, at_least=done + chance.randrange(1, 2_500))
        worker.kill()
        assert worker.wait() == -signal.SIGKILL
    bench.send(500)
    bench.finish()


@pytest.mark.parametrize(
    ("step", "nth"),
    [
        ("AFTER_GENESIS", 1),
        ("AFTER_ACQUIRE", 1),
        ("AFTER_OUTPUTS", 6),
        ("AFTER_FLUSH", 6),
        ("AFTER_COMMIT", 6),
        ("AFTER_APPLY", 6),
    ],
)
def test_a_kill_at_a_named_step_leaves_outputs_and_tables_exact(
    bench: Workbench, step: str, nth: int
) -> None:
    """Each of these leaves another combination of transaction, entry and local state behind.

    Two groups of two tasks acquire with four commits, so the sixth time is in the middle of processing.
    """
    for _ in range(1 if step == "AFTER_GENESIS" else 2):  # genesis is written once in a group's life
        bench.send(1_000)
        worker = bench.worker_killed_at(step, nth)
        assert worker.wait(30) == -signal.SIGKILL, bench.log.read_text()
    bench.send(1_000)
    bench.send(500)
    bench.finish()
