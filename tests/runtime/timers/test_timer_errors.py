"""Functions of timers that raise: retries, policies, dead letters, replays, and outputs that Kafka refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import WorkerSettings
from pipeline.errors import HandlerError
from pipeline.testing import Step, TestDriver
from tests.support.runtime.timer_app import START_MS, TimerApp

pytestmark = pytest.mark.unverified  # outputs of timers are made from no record


def three_due(app: TimerApp, driver: TestDriver) -> None:
    """Timers of three keys are due, in the order a0, b0, c0."""
    for key in ("c0", "b0", "a0"):
        app.send(driver, 0, key, 10)
    app.send(driver, 20)


def test_a_function_that_raises_leaves_nothing_and_stops_its_partition() -> None:
    """The timer is kept, and the next start calls the function again."""
    app = TimerApp()
    app.broken = {"b0"}
    driver = app.driver()
    three_due(app, driver)
    app.send(driver, 21)
    with pytest.raises(
        HandlerError, match=r"@timer/alarms\[0\] offset .* cannot be processed by .*fire"
    ) as caught:
        driver.run()
    assert "ValueError: no" in caught.value.message
    assert app.shown(driver) == [0, 1, 2, 3, ("a0", 10)]
    app.broken.clear()
    driver.restart(empty_disk=True)
    driver.run()
    assert app.shown(driver) == [0, 1, 2, 3, ("a0", 10), ("b0", 10), ("c0", 10), 4]
    assert [each.fired for each in app.happened(driver)][-3:] == [1, 2, 3]


def test_other_partitions_continue() -> None:
    """The error belongs to one timer."""
    app = TimerApp()
    app.broken = {"b0"}
    driver = app.driver(partitions=2, tasks=1)
    three_due(app, driver)
    for at_s, key in ((0, "a1"), (20, ""), (21, "")):
        app.send(driver, at_s, key, 10 if key else None, partition=1)
    driver.run()
    assert app.shown(driver, 1) == [4, 5, ("a1", 10), 6]
    assert driver.log_events("partition_stopped")[0]["topic"] == "@timer/alarms"


def test_a_timer_can_be_skipped() -> None:
    """The outputs and writes of its attempt are undone, and the others fire."""
    app = TimerApp(on_error="skip")
    app.broken = {"b0"}
    driver = app.driver()
    three_due(app, driver)
    driver.run()
    assert app.shown(driver)[4:] == [("a0", 10), ("c0", 10)]
    assert driver.worker.progress().skipped == 1
    assert app.armed(driver) == {}
    assert driver.table(app.fired) == {"all": 2}


def test_a_retry_holds_the_later_timers_but_not_the_records() -> None:
    """The order of the timers is kept; a service that is down must not stop the input."""
    app = TimerApp(retries=2, retry_delay_s=1.0)
    app.broken = {"b0"}
    driver = app.driver()
    driver.run()
    three_due(app, driver)
    driver.step()
    driver.step()
    assert [key for key, _ in app.calls] == ["a0", "b0"]
    app.send(driver, 21)
    driver.step()
    assert driver.worker.progress().records == 5
    driver.clock.advance(0.2)
    for _ in range(3):
        driver.step()
    assert not driver.task().idle
    driver.clock.advance(1.0)
    driver.step()
    assert [key for key, _ in app.calls] == ["a0", "b0", "b0"]
    app.broken.clear()
    driver.run()
    assert [key for key, _ in app.calls] == ["a0", "b0", "b0", "b0", "c0"]
    assert app.shown(driver) == [0, 1, 2, 3, ("a0", 10), 4, ("b0", 10), ("c0", 10)]


@pytest.mark.parametrize("due_s", [None, 60])
def test_a_timer_that_is_cancelled_or_moved_is_not_tried_again(due_s: int | None) -> None:
    """Records continue during a retry, so the reason for the timer may be gone."""
    app = TimerApp(retries=1, retry_delay_s=5.0)
    app.broken = {"b0"}
    driver = app.driver()
    driver.run()
    three_due(app, driver)
    app.send(driver, 21, "b0", due_s)
    driver.step()
    driver.step()
    assert [key for key, _ in app.calls] == ["a0", "b0"]
    driver.run()
    assert app.calls == [("a0", 10), ("b0", 10), ("c0", 10)]
    app.broken.clear()
    app.send(driver, 100)
    driver.run()
    assert app.calls[3:] == ([] if due_s is None else [("b0", 60)])


def test_an_earlier_timer_that_is_set_during_a_retry_does_not_take_its_failures() -> None:
    """The retries belong to one timer."""
    app = TimerApp(retries=1, retry_delay_s=5.0, on_error="dead_letter")
    app.broken = {"b0", "a0"}
    driver = app.driver()
    driver.run()
    app.send(driver, 0, "b0", 10)
    app.send(driver, 20)
    app.send(driver, 21, "a0", 5)
    driver.run()
    assert app.calls.count(("a0", 5)) == 2
    assert [letter.key for letter in driver.dead_letters()] == [b"a0", b"b0"]


def test_a_replay_calls_the_function_from_the_letter_after_it_was_set_again() -> None:
    """Setting it again for the replay would overwrite the newer time."""
    app = TimerApp(on_error="dead_letter")
    app.broken = {"a0"}
    driver = app.driver()
    app.send(driver, 0, "a0", 10)
    app.send(driver, 20)
    driver.run()
    (letter,) = driver.dead_letters()
    assert (letter.key, letter.value) == (b"a0", b"%d" % (START_MS + 10_000))
    headers = dict(letter.headers)
    assert headers["dead-letter-topic"] == b"@timer/alarms"
    assert headers["dead-letter-error"] == b"ValueError: no"
    app.send(driver, 21, "a0", 500)
    driver.run()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert len(driver.dead_letters()) == 2
    app.broken.clear()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.shown(driver)[-1] == 2
    app.send(driver, 600)
    driver.run()
    assert app.armed(driver) == {}
    assert app.shown(driver)[-1] == ("a0", 500)


def test_effect_keys_differ_by_timer_and_stay_the_same() -> None:
    """An effect outside Kafka of each timer happens once."""
    app = TimerApp()
    driver = app.driver()
    driver.run()
    three_due(app, driver)
    driver.crash_at(Step.AFTER_ENTRY)
    driver.run()
    assert driver.crashed
    driver.restart()
    driver.run()
    assert len(set(app.effect_keys)) == 6
    assert app.effect_keys == app.effect_keys[:6] * 2


def test_a_timer_whose_output_kafka_refuses_is_found() -> None:
    """Its policy is applied to it alone, and the other timers fire."""
    app = TimerApp(on_error="dead_letter")
    driver = app.driver(settings=WorkerSettings(worker_id="test", max_records_per_commit=100))
    driver.broker.refuses = lambda output: (
        "odd" if output.topic == "log" and b'"k13-0"' in (output.value or b"") else None
    )
    for number in range(40):
        app.send(driver, 0, f"k{number:02}-0", 10)
    app.send(driver, 20)
    app.send(driver, 21)
    driver.run()
    fired = [each.key for each in app.happened(driver) if each.key]
    assert fired == [f"k{number:02}-0" for number in range(40) if number != 13]
    assert app.shown(driver)[-1] == 41
    assert [letter.key for letter in driver.dead_letters()] == [b"k13-0"]
    assert app.armed(driver) == {}


def test_a_refused_output_of_a_timer_that_stops_keeps_the_timer() -> None:
    """The partition stops at the timer, which must not be lost with it."""
    app = TimerApp()
    driver = app.driver(settings=replace(WorkerSettings(worker_id="test"), max_records_per_commit=100))
    driver.broker.refuses = lambda output: (
        "odd" if output.topic == "log" and b'"b0"' in (output.value or b"") else None
    )
    three_due(app, driver)
    with pytest.raises(HandlerError, match="odd"):
        driver.run()
    assert app.armed(driver) == {"b0": 10, "c0": 10}
