"""A crash, or a full disk, at each step of a checkpoint and of its download."""

from __future__ import annotations

import pytest

from pipeline.errors import CorruptStateError
from pipeline.ports import Step
from tests.support.runtime.checkpointed import (
    begins_at,
    check_restored_from_a_checkpoint,
    kept,
    with_history,
)
from tests.support.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS


@pytest.mark.parametrize("step", CHECKPOINT_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_a_checkpoint_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Whatever of objects, manifest, entry, deletion and truncation is done: the next start copes, every time."""
    sums = with_history()
    for number in range(4):
        sums.driver.crash_at(step, nth=1 + number % 2)
        for _ in range(4):
            sums.send(number)
            sums.driver.run()
            if sums.driver.crashed:
                break
        assert sums.driver.crashed
        sums.driver.restart(empty_disk=empty_disk)
    sums.send(1)
    sums.driver.run()
    sums.check()
    check_restored_from_a_checkpoint(sums)
    assert begins_at(sums) == kept(sums)[-1].offset


@pytest.mark.parametrize("step", DOWNLOAD_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_a_download_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Half a state must not be taken for one; the next start begins again."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    for nth in (1, 2, 1):
        sums.driver.crash_at(step, nth=min(nth, 1 if step is not Step.DURING_DOWNLOAD else nth))
        sums.driver.run()
        if not sums.driver.crashed:
            assert step is Step.AFTER_INSTALL  # the state was in its place, and was taken up
            break
        sums.driver.restart(empty_disk=empty_disk)
    sums.driver.run()
    sums.check()


def test_a_disk_that_is_full_while_a_checkpoint_arrives_stops_the_task_with_that_reason() -> None:
    """And leaves nothing that looks like a state: with room again, the next start restores it."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    sums.driver.stores.fail_next("write", CorruptStateError("000009.sst cannot be written: No space left"))
    with pytest.raises(CorruptStateError, match="No space left"):
        sums.driver.run()
    assert not sums.driver.stores.exists(sums.task)
    sums.driver.restart()
    sums.driver.run()
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "a checkpoint"
    sums.check()


def test_a_disk_that_is_full_while_a_state_is_copied_costs_one_checkpoint() -> None:
    """Processing continues while the state itself can be written; the checkpoint is retried."""
    sums = with_history()
    newest = kept(sums)[0]
    sums.driver.stores.fail_next("snapshot", CorruptStateError("cannot be copied: No space left"))
    sums.send(1)
    sums.driver.run()
    (said,) = sums.driver.log_events("checkpoint_failed")
    assert "No space left" in said["message"]
    sums.send(2)
    sums.driver.run()
    assert kept(sums)[0].seq > newest.seq
    sums.check()
