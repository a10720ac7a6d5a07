"""Crashes and stops of a driven app."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event
from pipeline.errors import InputError, InvariantError
from pipeline.ports import Step
from pipeline.testing import TestDriver
from tests.support.testing.flights import Delay, Flight, app, delays, flights, totals


@pytest.mark.parametrize("step", [Step.BEFORE_BEGIN, Step.AFTER_FLUSH, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_crash_loses_and_doubles_nothing(step: Step, empty_disk: bool, deferred: bool) -> None:
    """The user's own test of the promise, on the user's own app."""
    driver = TestDriver(app, deferred=deferred)
    driver.run()
    for minutes in (10, 5):
        driver.send(flights, "AA", Flight("AA", minutes))
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 10), Delay(2, 15), Delay(3, 16)]
    assert driver.table(totals) == {"AA": Delay(3, 16)}


def test_a_crash_at_the_nth_time(driver: TestDriver) -> None:
    """The first commit passes, the second does not."""
    driver.run()
    driver.crash_at(Step.AFTER_FLUSH, nth=2)
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert len(driver.outputs(delays)) == 1
    driver.send(flights, "AA", Flight("AA", 1))
    driver.run()
    assert driver.crashed
    assert driver.table(totals) == {"AA": Delay(1, 1)}


@pytest.mark.parametrize("name", ["after_commit", "AFTER_COMIT"])
def test_crash_at_refuses_what_is_not_a_step(driver: TestDriver, name: Any) -> None:
    """The test would pass without a crash."""
    with pytest.raises(InputError, match=r"is not a Step; did you mean Step\.AFTER_COMMIT\?"):
        driver.crash_at(name)
    with pytest.raises(InputError, match="first occurrence is 1"):
        driver.crash_at(Step.AFTER_COMMIT, nth=0)


def test_a_step_that_was_not_reached_ends_no_later_process(driver: TestDriver) -> None:
    """It would end the run that follows the restart, whose results the test checks."""
    driver.crash_at(Step.SINK_AFTER_ROWS)
    driver.crash_at(Step.AFTER_FLUSH, nth=3)
    driver.run()
    assert not driver.crashed
    assert driver.armed == {Step.SINK_AFTER_ROWS: 1, Step.AFTER_FLUSH: 2}
    driver.restart()
    assert driver.armed == {}
    for _ in range(3):
        driver.send(flights, "AA", Flight("AA", 1))
        driver.run()
    assert not driver.crashed


def test_what_a_crashed_process_left_can_be_read(driver: TestDriver) -> None:
    """Outputs are in Kafka, and rows on the disk: after a crash between both, the rows are older."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    driver.crash_at(Step.AFTER_COMMIT)
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 1)]
    assert driver.table(totals) == {}
    driver.restart()
    driver.run()
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_crash_while_stopping(driver: TestDriver) -> None:
    """The last commit can be cut off like any other."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    driver.step()
    driver.crash_at(Step.AFTER_COMMIT)
    driver.stop()
    assert driver.crashed
    driver.restart()
    driver.run()
    assert [event.value for event in driver.outputs(delays)] == [Delay(1, 1)]
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_crashed_worker_does_not_run_by_itself(driver: TestDriver) -> None:
    """A test that forgot to restart would pass without testing anything."""
    driver.crash()
    with pytest.raises(InvariantError, match=r"restart\(\) it first"):
        driver.run()


def test_what_is_not_committed_is_gone_after_a_crash(driver: TestDriver) -> None:
    """Processed is not committed: outputs, tables and input positions go together."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    assert driver.step()
    driver.crash()
    assert driver.outputs(delays) == []
    assert driver.table(totals) == {}
    driver.restart()
    driver.run()
    assert driver.table(totals) == {"AA": Delay(1, 1)}


def test_a_clean_stop_commits_what_is_open(driver: TestDriver) -> None:
    """SIGTERM in a deployment; the next start has nothing to do."""
    driver.run()
    driver.send(flights, "AA", Flight("AA", 1))
    driver.step()
    driver.stop()
    assert driver.table(totals) == {"AA": Delay(1, 1)}
    driver.stop()
    driver.run()
    assert len(driver.outputs(delays)) == 1


def test_handlers_do_not_run_again_for_committed_records() -> None:
    """Restore replays the journal, so a handler may ask the outside world, or draw at random."""
    calls: list[int] = []
    own = App("once")
    topic = own.topic("in", value=int)
    last = own.table("last", key=str, value=int)

    @own.handler(topic)
    def note(event: Event[None, int], ctx: Context) -> None:
        calls.append(event.value)
        ctx.table(last)["last"] = event.value

    driver = TestDriver(own)
    for n in range(3):
        driver.send(topic, None, n)
        driver.run()
        driver.restart(empty_disk=True)
    driver.run()
    assert calls == [0, 1, 2]
    assert driver.table(last) == {"last": 2}
