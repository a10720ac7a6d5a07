"""A worker of one task, on in-memory ports: its start, its stop and its failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, FatalTaskError
from pipeline.runtime.commit.commit_protocol import Publisher
from tests.support.runtime.sums import Sums


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
    (failed,) = sums.driver.log_events("task_failed")
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
