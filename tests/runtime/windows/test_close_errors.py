"""Functions for the ends of windows that raise: retries, policies, dead letters, and outputs that Kafka refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from pipeline import App, Topic
from pipeline.api.window_rows import RuntimeWindow
from pipeline.config import WorkerSettings
from pipeline.errors import FatalTaskError, HandlerError
from pipeline.testing import Step, TestDriver
from tests.support.runtime.window_app import START_MS, WindowApp

pytestmark = pytest.mark.unverified  # a closed window is made from several records


def test_a_function_that_raises_leaves_nothing_and_stops_its_partition() -> None:
    """The row is kept, and the next start calls it again."""
    app = WindowApp()
    app.broken = {"b"}
    driver = app.driver()
    for key, value in (("a", 5), ("b", 6), ("c", 7), ("x", 300)):
        app.send(driver, key, value)
    with pytest.raises(
        HandlerError, match=r"@window/numbers\[0\] offset .* cannot be processed by .*close"
    ) as caught:
        driver.run()
    assert "ValueError: no" in caught.value.message
    assert app.results(driver) == [("a", 0, (5,))]
    app.broken.clear()
    driver.restart(empty_disk=True)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,)), ("b", 0, (6,)), ("c", 0, (7,))]


@pytest.mark.parametrize("read_before", [0, 1])
def test_an_error_between_two_steps_belongs_to_neither(
    monkeypatch: pytest.MonkeyPatch, read_before: int
) -> None:
    """The policy of the step before it would otherwise apply, and its outputs would be removed."""
    app = WindowApp(on_error="skip")
    driver = app.driver()
    due = RuntimeWindow.due

    def broken(self: RuntimeWindow[Any, Any], more: Callable[[], bool]) -> Iterator[Any]:
        yield from islice(due(self, more), read_before)
        raise ValueError("the codec is wrong")

    for key, value in (("a", 5), ("b", 6), ("x", 300)):
        app.send(driver, key, value)
    with monkeypatch.context() as patched:
        patched.setattr(RuntimeWindow, "due", broken)
        with pytest.raises(
            FatalTaskError,
            match=r"main/0: the next due step of @window/numbers cannot be read: ValueError: the codec",
        ):
            driver.run()
    assert driver.worker.progress().skipped == 0
    driver.restart(empty_disk=True)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,)), ("b", 0, (6,))]


def test_other_partitions_continue() -> None:
    """The error belongs to one row."""
    app = WindowApp()
    app.broken = {"b"}
    driver = app.driver(partitions=2, tasks=1)
    for partition, key in ((0, "b"), (1, "a")):
        for value in (5, 300):
            driver.send(app.events, key, value, timestamp_ms=START_MS + value * 1000, partition=partition)
    driver.run()
    assert app.results(driver) == [("a", 0, (5,))]
    assert driver.log_events("partition_stopped")[0]["topic"] == "@window/numbers"


def test_a_row_can_be_skipped() -> None:
    """The outputs of its attempt are undone, and the others are closed."""
    app = WindowApp(on_error="skip")
    app.broken = {"b"}
    driver = app.driver()
    for key, value in (("a", 5), ("b", 6), ("c", 7), ("x", 300)):
        app.send(driver, key, value)
    driver.run()
    assert [key for key, _, _ in app.results(driver)] == ["a", "c"]
    assert driver.worker.progress().skipped == 1


def test_a_retry_holds_the_later_rows_of_its_window_but_not_the_records() -> None:
    """The order of a window's results is kept."""
    app = WindowApp(retries=2, retry_delay_s=1.0)
    app.broken = {"b"}
    driver = app.driver()
    driver.run()
    for key, value in (("a", 5), ("b", 6), ("c", 7), ("x", 300)):
        app.send(driver, key, value)
    driver.step()
    driver.step()
    assert app.calls == ["a", "b"]
    app.send(driver, "x", 301)
    driver.step()
    assert driver.worker.progress().records == 5
    driver.clock.advance(0.2)
    for _ in range(3):
        driver.step()  # all is committed, and one row is to be tried again
    assert not driver.task().idle
    driver.clock.advance(1.0)
    driver.step()
    assert app.calls == ["a", "b", "b"]
    app.broken.clear()
    driver.run()
    assert app.calls == ["a", "b", "b", "b", "c"]
    assert [key for key, _, _ in app.results(driver)] == ["a", "b", "c"]


def test_a_dead_letter_carries_the_row_and_a_replay_calls_the_function() -> None:
    """The window is closed meanwhile, so the row is only in the letter."""
    app = WindowApp(on_error="dead_letter")
    app.broken = {"a", "b"}
    driver = app.driver()
    for key, value in (("a", 5), ("a", 8), ("b", 6), ("x", 300)):
        app.send(driver, key, value)
    driver.run()
    letters = driver.dead_letters()
    assert [(letter.key, letter.value) for letter in letters] == [(b"a", b"[5,8]"), (b"b", b"[6]")]
    headers = dict(letters[0].headers)
    assert headers["dead-letter-topic"] == b"@window/numbers"
    assert headers["dead-letter-error"] == b"ValueError: no"
    assert driver.windows(app.window) == {("x", START_MS + 300_000): (300,)}

    app.broken = {"b"}
    clock_ms = driver.task().clock_ms
    assert driver.replay_dead_letters() == 2
    driver.run()
    assert app.results(driver) == [("a", 0, (5, 8))]
    assert [event.timestamp_ms for event in driver.outputs(app.closed)] == [START_MS + 59_999]
    assert driver.task().clock_ms == clock_ms
    assert len(driver.dead_letters()) == 3

    app.broken.clear()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.results(driver) == [("a", 0, (5, 8)), ("b", 0, (6,))]


def test_a_replayed_event_does_not_move_the_clock() -> None:
    """Replays are old. This one could not be decoded before, so it had no time."""

    def app_of(value: Any) -> tuple[App, Topic[str, Any], list[int]]:
        app, clocks = App("replays"), list[int]()
        events = app.topic("events", key=str, value=value, event_time_ms=lambda event: int(event.value))
        app.handler(events, on_error="dead_letter")(lambda _event, ctx: clocks.append(ctx.clock_ms))
        return app, events, clocks

    app, events, _ = app_of(int)
    driver = TestDriver(app)
    driver.send(events, "a", 5)
    driver.send_raw(events, b"a", b'"300"')
    driver.run()
    app, events, clocks = app_of(int | str)
    driver.restart(app=app)
    assert driver.replay_dead_letters() == 1
    driver.run()
    driver.send(events, "a", 6)
    driver.run()
    assert clocks == [5, 5]


def test_effect_keys_differ_by_row_and_stay_the_same() -> None:
    """An effect outside Kafka of each row happens once."""
    app = WindowApp()
    driver = app.driver()
    driver.run()
    for key, value in (("a", 5), ("b", 5), ("a", 65), ("x", 300)):
        app.send(driver, key, value)
    driver.crash_at(Step.AFTER_ENTRY)
    driver.run()
    assert driver.crashed
    driver.restart()
    driver.run()
    assert len(set(app.effect_keys)) == 6
    assert app.effect_keys == app.effect_keys[:6] * 2


def test_a_row_whose_output_kafka_refuses_is_found() -> None:
    """Its policy is applied to it alone, and the other rows are closed."""
    app = WindowApp(on_error="dead_letter")
    driver = app.driver(settings=WorkerSettings(worker_id="test", max_records_per_commit=100))
    driver.broker.refuses = lambda output: "odd" if (output.topic, output.key) == ("closed", b"k13") else None
    for number in range(40):
        app.send(driver, f"k{number}", number)
    app.send(driver, "x", 300)
    driver.run()
    closed = [key for key, _, _ in app.results(driver)]
    assert sorted(closed) == sorted(f"k{number}" for number in range(40) if number != 13)
    assert [letter.key for letter in driver.dead_letters()] == [b"k13"]


def test_a_refused_output_of_the_first_step_stops_its_partition_alone() -> None:
    """No function was called in this turn, so the step itself must say which one it is."""
    app = WindowApp()
    driver = app.driver(partitions=2, tasks=1)
    driver.broker.refuses = lambda output: "odd" if (output.topic, output.key) == ("closed", b"a") else None
    for partition, key in enumerate("ab"):
        driver.send(app.events, key, 1, timestamp_ms=START_MS, partition=partition)
        driver.send(app.events, "x", 2, timestamp_ms=START_MS + 300_000, partition=partition)
    driver.run()
    (stopped,) = driver.log_events("partition_stopped")
    assert (stopped["topic"], stopped["partition"]) == ("@window/numbers", 0)
    assert app.results(driver) == [("b", 0, (1,))]
