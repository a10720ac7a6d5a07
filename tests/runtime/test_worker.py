"""A worker of one task, on in-memory ports: crashes at each step of its start and its commits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, FatalTaskError
from pipeline.ports import Step
from pipeline.runtime.commit.publisher import Publisher
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


def test_a_stop_commits_what_is_open() -> None:
    """A deployment sends SIGTERM; nothing that was processed should be processed again."""
    sums = Sums()
    sums.driver.run()
    sums.send(1, 2, 3)
    sums.driver.step()
    assert sums.driver.outputs(sums.sums) == []
    sums.driver.stop()
    sums.check()


def test_starting_at_latest_is_resolved_once() -> None:
    """`latest` is for the first start; a restart continues where the app was, however late."""
    sums = Sums()
    sums.driver.settings = replace(sums.driver.settings, start="latest")
    sums.driver.send(sums.numbers, "a", 100)
    sums.driver.run()
    assert sums.driver.outputs(sums.sums) == []
    sums.driver.crash()
    sums.send(1, 2)
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_a_task_that_fails_for_any_reason_says_what_to_do_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads the last line of the log first, so it must include the next step."""

    def fail(*_: object) -> None:
        raise FatalTaskError("a reason without advice")

    monkeypatch.setattr(Publisher, "publish", fail)
    sums = Sums()
    sums.send(1)
    with pytest.raises(FatalTaskError, match="a reason without advice"):
        sums.driver.run()
    (failed,) = sums.driver.said("task_failed")
    assert "start the worker again" in failed["hint"]


def test_a_worker_does_not_end_before_it_has_claimed_its_other_tasks() -> None:
    """Its own last task is claimed at once, and may fail before the tasks that no worker runs are claimed."""
    sums = Sums(partitions=2)
    other = TaskId("sums", "main", 1)
    sums.driver.stores.fail_next("open", ConfigError("no space left"), task=other)
    with pytest.raises(ConfigError, match="no space left"):
        sums.driver.run()
    sums.driver.send_raw(sums.numbers, b"a", b"not a number", partition=0)
    sums.driver.restart()
    worker = sums.driver.worker
    for _ in range(200):
        worker.step()
        assert not worker.finished
        if any(1 in run.tasks for run in worker.runs):
            break
        sums.driver.clock.advance(0.05)
    assert list(worker.failures) == [sums.task]
