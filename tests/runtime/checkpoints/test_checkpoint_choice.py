"""What a restore starts from when there are checkpoints: they, a local state, the journal."""

from __future__ import annotations

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import FatalTaskError
from pipeline.ports import Step
from pipeline.runtime.checkpoints.upload import Uploaded, clean_up
from pipeline.testing import MemoryBroker
from tests.support.runtime.checkpointed import (
    begins_at,
    with_history,
)


def test_a_local_state_that_the_journal_has_left_behind_is_replaced() -> None:
    """A worker that gets a task back after a long time reports no error and keeps no old copy."""
    sums = with_history(2)
    left_behind = sums.driver.stores
    sums.driver.stop()
    sums.driver.restart(empty_disk=True)
    for number in range(8):
        sums.send(number)
        sums.driver.run()
    sums.driver.stop()
    left_behind.crash()
    sums.driver.stores = left_behind
    sums.driver.restart()
    sums.send(9)
    sums.driver.run()
    sums.check()
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "a checkpoint"
    assert sums.driver.log_events("local_state_outdated")
    assert not sums.driver.log_events("local_state_set_aside")


def test_a_local_state_that_fits_is_taken_whatever_the_store_says() -> None:
    """Quick restarts need no store."""
    sums = with_history()
    for name in sums.driver.checkpoints.names():
        sums.driver.checkpoints.delete([name])
    sums.driver.restart()
    sums.send(1)
    sums.driver.run()
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "local state"
    sums.check()


def test_a_reset_is_replayed_over_a_checkpoint_from_before_it() -> None:
    """Checkpoints outlive a reset; what they hold does not."""
    sums = with_history()
    sums.driver.stop()
    sums.driver.reset()
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert len(sums.driver.outputs(sums.sums)) == 2 * len(sums.sent)
    table = sums.driver.table(sums.totals)
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert sums.driver.table(sums.totals) == table


@pytest.mark.unverified
def test_checkpoints_without_their_journal_are_no_new_group() -> None:
    """The topic was deleted and the disk is empty: earlier outputs must not be produced again."""
    sums = with_history()
    sums.driver.stop()
    sums.driver.broker.delete("sums.main.journal")
    sums.driver.broker._offsets.clear()
    sums.driver.restart(empty_disk=True)
    with pytest.raises(FatalTaskError, match="a checkpoint of task sums/main/0"):
        sums.driver.run()


def test_a_truncation_that_overtakes_a_restore_makes_it_choose_again() -> None:
    """A worker that was fenced wakes up and truncates, while its successor reads on from an old local state."""
    sums = with_history(1)
    sums.driver.stop()
    old = sums.driver.stores
    sums.driver.restart(empty_disk=True)
    slept: list[Uploaded] = []

    def asleep(_task: object, _cluster: object, made: Uploaded, *_: object) -> None:
        slept.append(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.checkpoints.checkpointer.clean_up", asleep)
        for number in range(6):
            sums.send(number)
            sums.driver.run()
    assert begins_at(sums) == 0
    sums.driver.crash()
    old.crash()
    sums.driver.stores = old
    sums.driver.restart()
    steps, environment = sums.driver._steps, sums.driver.environment()
    reached = steps.reached

    def wake_up(step: Step, task: TaskId) -> None:
        reached(step, task)
        if step is Step.AFTER_CHOICE and slept:
            clean_up(task, MemoryBroker.cluster_id, slept.pop(), sums.driver.checkpoints, environment)
            slept.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "reached", wake_up)
        sums.driver.run()
    assert slept == []
    assert begins_at(sums) > 0
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "a checkpoint"
    assert sums.driver.log_events("local_state_outdated")
    sums.check()
