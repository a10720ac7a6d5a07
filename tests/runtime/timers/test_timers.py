"""Timers: when they fire, in which order, what cancels and moves them, and what survives a crash."""

from __future__ import annotations

import pytest

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S, INPUT_CHECK_S
from pipeline.testing import Step
from tests.support.runtime.timer_app import START_MS, TimerApp

pytestmark = pytest.mark.unverified  # outputs of timers are made from no record

TIMERS = 4_000
LATER_S = IDLE_S + 2 * INPUT_CHECK_S  # after it, an input at its end is idle


def test_due_timers_fire_before_the_next_record_in_order() -> None:
    """A record that is later than a timer must not cancel it, and results must not depend on batches."""
    app = TimerApp()
    driver = app.driver()
    for key, due_s in (("c0", 20), ("b0", 10), ("a0", 20), ("d0", 100)):
        app.send(driver, 1, key, due_s)
    app.send(driver, 50)  # moves the clock
    app.send(driver, 51, "a0")
    driver.run()
    assert app.shown(driver) == [0, 1, 2, 3, 4, ("b0", 10), ("a0", 20), ("c0", 20), 5]
    assert [each.fired for each in app.happened(driver)] == [0, 0, 0, 0, 0, 0, 1, 2, 3]
    assert app.armed(driver) == {"d0": 100}


def test_a_payment_and_a_due_timer_in_both_orders() -> None:
    """The record that moves the clock to the due time may still cancel the timer; a later one may not."""
    for paid_at_s, expected in ((30, [0, 1, 2]), (31, [0, 1, ("order0", 30), 2])):
        app = TimerApp()
        driver = app.driver()
        app.send(driver, 0, "order0", 30)
        app.send(driver, paid_at_s - 1)
        app.send(driver, paid_at_s, "order0")
        if paid_at_s == 31:
            assert app.armed(driver) == {}
        driver.run()
        assert app.shown(driver) == expected


def test_outputs_have_the_due_time_as_timestamp() -> None:
    """The next stage sees when the timer was due, not when the worker was fast enough."""
    app = TimerApp()
    driver = app.driver()
    app.send(driver, 0, "a0", 20)
    app.send(driver, 500)
    driver.run()
    assert [event.timestamp_ms for event in driver.outputs(app.log)][-1] == START_MS + 20_000


def test_a_timer_in_the_past_fires_before_the_next_record() -> None:
    """A handler may compute a time that is over already."""
    app = TimerApp()
    driver = app.driver()
    app.send(driver, 100)
    app.send(driver, 101, "a0", 20)
    app.send(driver, 102)
    driver.run()
    assert app.shown(driver) == [0, 1, ("a0", 20), 2]


def test_timers_fire_when_the_input_stops() -> None:
    """A delayed message must not wait for another one."""
    app = TimerApp()
    driver = app.driver()
    app.send(driver, 0, "a0", 20)
    driver.run()
    assert app.shown(driver) == [0]
    driver.advance(LATER_S + 21)
    assert app.shown(driver) == [0, ("a0", 20)]


def test_a_timer_can_be_moved_and_cancelled() -> None:
    """There is one timer for each key: the last time counts."""
    app = TimerApp()
    driver = app.driver()
    for key, due_s in (("a0", 20), ("a0", 40), ("b0", 40), ("b0", 20), ("c0", 20), ("c0", None), ("d0", 20)):
        app.send(driver, 1, key, due_s)
    driver.run()
    assert app.armed(driver) == {"a0": 40, "b0": 20, "d0": 20}
    app.send(driver, 2, "d0", 60)
    app.send(driver, 2, "a0", 45)
    driver.run()
    app.send(driver, 30)
    app.send(driver, 31)
    driver.run()
    assert app.shown(driver)[-3:] == [9, ("b0", 20), 10]
    app.send(driver, 100)
    driver.run()
    assert app.shown(driver)[-3:] == [11, ("a0", 45), ("d0", 60)]
    assert driver.stores.contents(driver.task().id).keys() == {
        key for key in driver.stores.contents(driver.task().id) if b"\x00tx" not in key
    }


def test_a_timer_that_sets_itself_fires_once_for_each_commit() -> None:
    """After a pause, a timer that is due again at once must not stop the input forever."""
    app = TimerApp()
    driver = app.driver()
    driver.run()
    app.send(driver, 0, "again0", 10)
    app.send(driver, 60)
    app.send(driver, 61)
    driver.step()
    driver.step()
    assert app.calls == [("again0", 10)]
    driver.run()
    assert [due_s for _, due_s in app.calls] == [10, 17, 24, 31, 38, 45, 52, 59]
    assert app.armed(driver) == {"again0": 66}
    assert 2 in app.shown(driver)


def test_timers_survive_a_crash_and_a_lost_disk() -> None:
    """The timer is a row of the state: set, moved and fired exactly once."""
    for empty_disk in (False, True):
        for step in (Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY):
            app = TimerApp()
            driver = app.driver()
            app.send(driver, 0, "a0", 20)
            driver.run()
            app.send(driver, 0, "a0", 30)
            driver.run()
            app.send(driver, 40)
            driver.crash_at(step)
            driver.run()
            assert driver.crashed
            driver.restart(empty_disk=empty_disk)
            app.send(driver, 41)
            driver.run()
            assert app.shown(driver) == [0, 1, 2, ("a0", 30), 3]
            assert app.armed(driver) == {}


def test_a_reset_sets_and_fires_the_timers_again_with_the_same_effect_keys() -> None:
    """The state starts empty, and the records are processed again in the order of event time."""
    app = TimerApp()
    driver = app.driver(partitions=2, tasks=1)
    for partition in (0, 1):
        app.send(driver, 0, f"a{partition}", 20, partition)
        app.send(driver, 0, f"b{partition}", 500, partition)
        app.send(driver, 30, partition=partition)
    driver.run()
    keys, shown = list(app.effect_keys), app.shown(driver)
    driver.reset(partition=0)
    driver.run()
    assert app.armed(driver) == {"b0": 500, "b1": 500}
    assert app.shown(driver) == [*shown, *shown]
    assert len(app.shown(driver, 1)) == 4
    assert set(app.effect_keys) == set(keys)
    assert len(app.effect_keys) == 6


def test_many_due_timers_drain_in_bounded_commits_while_others_continue() -> None:
    """After a pause, the input of their partition waits; that of other partitions does not."""
    app = TimerApp()
    settings = WorkerSettings(worker_id="test", max_records_per_commit=400)
    driver = app.driver(partitions=2, tasks=1, settings=settings)
    for number in range(TIMERS):
        app.send(driver, 1, f"k{number:05}-0", 10 + number % 7)
    driver.run()
    commits = driver.worker.progress().commits
    app.send(driver, 1_000)
    app.send(driver, 1_001)
    driver.step()
    app.send(driver, 1_000, partition=1)
    while not app.happened(driver, 1):
        driver.step()
        driver.clock.advance(0.1)
    assert sum(1 for each in app.happened(driver) if each.key) < TIMERS
    driver.run()
    assert driver.worker.progress().commits - commits >= TIMERS / 400
    assert app.shown(driver)[TIMERS:] == [
        TIMERS,
        *sorted(
            ((f"k{number:05}-0", 10 + number % 7) for number in range(TIMERS)), key=lambda it: (it[1], it[0])
        ),
        TIMERS + 1,
    ]
