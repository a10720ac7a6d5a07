"""`every`: due times of the wall clock, missed ones, take-overs with skewed clocks, retries and letters."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event, Tick
from pipeline.config import WorkerSettings
from pipeline.errors import HandlerError
from pipeline.testing import Step, TestDriver

pytestmark = pytest.mark.unverified  # outputs of ticks are made from no record

NOON_MS = 1_700_000_000_000 - 1_700_000_000_000 % 3_600_000
MINUTE = 60


class TickApp:
    """`count` adds up the numbers of `events`; each minute, the sum of the partition goes to `sums`."""

    def __init__(self, *, seconds: float = MINUTE, **options: Any) -> None:
        self.app = app = App("ticks")
        self.events = app.topic("events", key=str, value=int)
        self.sums = app.topic("sums", key=str, value=tuple[int, int, int])  # due minute, missed, sum
        self.table = app.table("count", key=str, value=int)
        self.ticks: list[Tick] = []
        self.broken = False
        app.handler(self.events)(self.count)
        app.every(seconds, name="sum", **options)(self.publish)

    def count(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.table)
        table["sum"] = table.get("sum", 0) + event.value

    def publish(self, tick: Tick, ctx: Context) -> None:
        self.ticks.append(tick)
        if self.broken:
            raise ValueError("no")
        total = ctx.table(self.table).get("sum", 0)
        ctx.send(self.sums, "sum", ((tick.due_ms - NOON_MS) // 60_000, tick.missed, total))

    def driver(self, **options: Any) -> TestDriver:
        driver = TestDriver(self.app, settings=WorkerSettings(worker_id="test"), **options)
        driver.clock.set_wall_ms(NOON_MS + 10_000)
        return driver

    def results(self, driver: TestDriver) -> list[tuple[int, int, int]]:
        return [event.value for event in driver.outputs(self.sums)]


def test_the_function_is_called_at_multiples_of_the_period() -> None:
    """Whichever worker owns the task, and whenever it was started."""
    app = TickApp()
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.run()
    assert app.results(driver) == []
    driver.advance(130)
    assert app.results(driver) == [(1, 0, 5), (2, 0, 5)]
    (first, _) = driver.outputs(app.sums)
    assert NOON_MS + 60_000 <= first.timestamp_ms < NOON_MS + 80_000


def test_an_idle_group_without_a_clock_ticks() -> None:
    """No record is needed, and no event time."""
    app = TickApp()
    driver = app.driver()
    driver.advance(60)
    assert app.results(driver) == [(1, 0, 0)]


def test_missed_times_give_one_call() -> None:
    """A worker that was down for an hour must not call 60 times."""
    app = TickApp()
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.advance(60)
    driver.stop()
    driver.clock.advance(3_600)
    driver.restart()
    driver.advance(1)
    assert app.results(driver) == [(1, 0, 5), (61, 59, 5)]
    driver.advance(60)
    assert app.results(driver)[2:] == [(62, 0, 5)]


def test_the_first_due_time_survives_a_restart() -> None:
    """A worker that is restarted every minute, just before the due time, would never call."""
    app = TickApp()
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.run()
    driver.stop()
    driver.clock.advance(300)
    driver.restart(empty_disk=True)
    driver.advance(1)
    assert app.results(driver) == [(5, 4, 5)]


@pytest.mark.parametrize("empty_disk", [False, True])
@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
def test_a_crash_around_a_call_repeats_nothing_that_is_committed(step: Step, empty_disk: bool) -> None:
    """The next due time is in the commit of the call."""
    app = TickApp()
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.run()
    driver.crash_at(step)
    driver.advance(60)
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.advance(5)
    assert app.results(driver) == [(1, 0, 5)]


def test_an_owner_whose_clock_is_behind_does_not_call_again() -> None:
    """The clock of the last call is stored, too: it does not go back."""
    app = TickApp()
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.advance(60)
    assert app.results(driver) == [(1, 0, 5)]
    driver.clock.set_wall_ms(NOON_MS - 300_000)
    driver.restart()
    driver.advance(120)
    assert app.results(driver) == [(1, 0, 5)]
    driver.clock.set_wall_ms(NOON_MS + 121_000)
    driver.run()
    assert app.results(driver)[1:] == [(2, 0, 5)]


def test_each_partition_is_called() -> None:
    """The tables that the function sees are those of a partition, so results do not depend on the number of tasks."""
    for tasks in (1, 3):
        app = TickApp()
        driver = app.driver(partitions=3, tasks=tasks)
        for partition in range(3):
            driver.send(app.events, "a", partition, partition=partition)
        driver.advance(60)
        assert sorted(app.results(driver)) == [(1, 0, 0), (1, 0, 1), (1, 0, 2)]
        assert len({tick.effect_key() for tick in app.ticks}) == 3


def test_records_do_not_wait_for_a_retry_which_keeps_its_due_time() -> None:
    """The effect key of the due time is the same in each attempt."""
    app = TickApp(retries=10, retry_delay_s=40.0)
    driver = app.driver()
    driver.run()
    app.broken = True
    driver.clock.advance(55)
    driver.step()
    driver.send(app.events, "a", 5)
    driver.step()
    assert driver.worker.progress().records == 1
    driver.clock.advance(41)
    driver.step()
    driver.clock.advance(30)
    app.broken = False
    driver.run()
    assert len({tick.effect_key() for tick in app.ticks[:2]}) == 1
    assert app.results(driver) == [(1, 0, 5), (2, 0, 5)]


def test_a_dead_letter_is_replayed_with_its_due_time() -> None:
    """The next due times do not wait for it."""
    app = TickApp(on_error="dead_letter")
    driver = app.driver()
    app.broken = True
    driver.advance(60)
    app.broken = False
    driver.advance(60)
    assert app.results(driver) == [(2, 0, 0)]
    (letter,) = driver.dead_letters()
    assert dict(letter.headers)["dead-letter-topic"] == b"@every/sum"
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.results(driver) == [(2, 0, 0), (1, 0, 0)]


def test_a_function_that_raises_stops_its_partition_and_keeps_the_due_time() -> None:
    """The next start calls it."""
    app = TickApp()
    driver = app.driver()
    driver.run()
    app.broken = True
    with pytest.raises(HandlerError, match=r"@every/sum\[0\] offset .* cannot be processed by .*publish"):
        driver.advance(60)
    app.broken = False
    driver.restart()
    driver.advance(1)
    assert [due for due, _, _ in app.results(driver)] == [1]


def test_a_shorter_period_takes_effect_at_once() -> None:
    """A stored due time of a day must not delay the calls of a period of a minute."""
    app = TickApp(seconds=86_400)
    driver = app.driver()
    driver.send(app.events, "a", 5)
    driver.run()
    later = TickApp()
    driver.restart(app=later.app)
    driver.advance(60)
    assert later.results(driver) == [(1, 0, 5)]
