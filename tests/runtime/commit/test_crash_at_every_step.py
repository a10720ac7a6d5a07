"""A crash at each step of a start and of a commit, on in-memory ports, with and without a lost disk."""

from __future__ import annotations

import pytest

from pipeline.ports import Step
from tests.support.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS, SINK_STEPS
from tests.support.runtime.sums import Sums

START_STEPS = {
    Step.BEFORE_GENESIS,
    Step.DURING_GENESIS,
    Step.AFTER_GENESIS,
    Step.AFTER_FENCE,
    Step.AFTER_END,
    Step.AFTER_CHOICE,
    Step.AFTER_REPLAY,
    Step.BEFORE_ACQUIRE,
    Step.AFTER_ACQUIRE,
}
# Reached by replays of many megabytes (test_restore.py), and with a checkpoint store (test_checkpoint_crashes.py).
ELSEWHERE = {Step.DURING_REPLAY, *CHECKPOINT_STEPS, *DOWNLOAD_STEPS, *SINK_STEPS}


@pytest.mark.parametrize("step", [s for s in Step if s not in START_STEPS | ELSEWHERE])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_commit_step_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Whatever transaction, entry and state a crash leaves, the restart recovers from it."""
    sums = Sums()
    sums.send(1, 2)
    sums.driver.run()
    for round_ in range(3):
        sums.driver.crash_at(step)
        sums.send(round_, 10, key="b")
        sums.send(round_)
        sums.driver.run()
        assert sums.driver.crashed
        sums.driver.restart(empty_disk=empty_disk)
    sums.driver.run()
    sums.check()


@pytest.mark.parametrize("step", [s for s in Step if s in START_STEPS])
def test_a_crash_at_each_step_of_the_start_leaves_results_exact(step: Step) -> None:
    """Genesis and restore are steps like any other: a crash in them is followed by another start."""
    sums = Sums(partitions=3)
    sums.send(1, 2, 3)
    for _ in range(1 if step in {Step.BEFORE_GENESIS, Step.AFTER_GENESIS} else 3):
        sums.driver.crash_at(step)
        sums.driver.run()
        assert sums.driver.crashed
        sums.driver.restart()
        sums.send(4)
    sums.driver.run()
    sums.check()
