"""What a test can ask a `TestDriver` without private attributes: positions, failures, tasks."""

from __future__ import annotations

import logging

import pytest
import structlog

from pipeline import App, Context, Event, HandlerError, InputError
from pipeline.testing import Step, TestDriver
from tests.support.runtime.sums import Sums


def test_positions_are_the_committed_ones() -> None:
    """They say how far a task is, also while more is processed and not yet committed."""
    sums = Sums.begun()
    sums.send(2, 3)
    sums.driver.step()
    assert not sums.driver.task().idle
    assert sums.driver.positions()["numbers"] == 1
    sums.driver.run()
    assert sums.driver.positions("main", 0)["numbers"] == 3


def test_a_task_that_the_worker_does_not_run_is_an_error() -> None:
    """A misspelled group must not look like a task without positions."""
    driver = Sums.begun().driver
    with pytest.raises(InputError, match="the worker of app sums runs no task of partition 0 of group mian"):
        driver.positions("mian")
    with pytest.raises(InputError, match="runs no task of partition 1 of group main"):
        driver.task(partition=1)


def test_failures_name_the_tasks_that_have_stopped() -> None:
    """The others continue, so that the exception of `run` alone does not tell how many there are."""
    app = App("shop")
    numbers = app.topic("numbers", key=str, value=int)

    @app.handler(numbers)
    def fail(event: Event[str, int], _ctx: Context) -> None:
        if event.value < 0:
            raise ValueError("negative")

    driver = TestDriver(app, partitions=2)
    assert driver.failures == {}
    driver.send(numbers, "a", 1, partition=0)
    driver.send(numbers, "a", -1, partition=1)
    with pytest.raises(HandlerError):
        driver.run()
    assert list(driver.failures) == [("main", 1)]
    assert isinstance(driver.failures["main", 1], HandlerError)
    driver.restart()
    assert driver.failures == {}


def test_a_crash_that_was_not_reached_can_be_forgotten() -> None:
    """The rest of the test is then about something else."""
    sums = Sums.begun()
    sums.driver.crash_at(Step.AFTER_COMMIT, nth=2)
    sums.send(1)
    sums.driver.run()
    sums.driver.clear_crashes()
    sums.send(2)
    sums.driver.run()
    assert not sums.driver.crashed


def test_topics_that_are_declared_later_can_be_created() -> None:
    """An app may declare topics after the driver was made, as a module does that is imported later."""
    app = App("shop")
    driver = TestDriver(app, partitions=3)
    more = app.topic("more", key=str, value=int)
    assert driver.broker.describe("more") is None
    driver.create_topics()
    driver.send(more, "a", 1)
    assert [event.value for event in driver.outputs(more)] == [1]
    info = driver.broker.describe("more")
    assert info is not None
    assert info.partitions == 3


def test_a_deferred_commit_runs_when_it_is_told() -> None:
    """A test decides what happens between the start of a commit and its end."""
    sums = Sums(deferred=True)
    sums.send(1)
    ran = 0
    for _ in range(100):
        sums.driver.step()
        assert not sums.driver.outputs(sums.sums) or ran
        ran += sums.driver.run_deferred()
        sums.driver.clock.advance(0.1)
    assert len(sums.driver.outputs(sums.sums)) == 1
    assert not sums.driver.run_deferred()
    assert not Sums.begun().driver.run_deferred()


def test_log_events_are_those_of_all_levels() -> None:
    """A program that logs only errors has tests of the other events, too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    driver = Sums.begun().driver
    assert driver.log_events("task_live")
