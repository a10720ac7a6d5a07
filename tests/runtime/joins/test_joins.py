"""Joins: which events are a pair, how long an event waits, and when it is unmatched."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import App, Context, Event, Tumbling
from pipeline.core.event_time import IDLE_S
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, HandlerError
from pipeline.ports import TopicSpec
from pipeline.runtime.task.task import Task
from pipeline.testing import Step, TestDriver
from tests.support.http.scrape import Scraper
from tests.support.runtime.checkpointed import EAGER
from tests.support.runtime.join_app import GRACE_S, WITHIN_S, JoinApp
from tests.support.runtime.window_app import START_MS

pytestmark = pytest.mark.unverified  # an unmatched call has no record of an input

WAIT_S = WITHIN_S + GRACE_S


def passed(driver: TestDriver, app: JoinApp, at_s: float) -> None:
    """The clock reaches this time, by events of other keys."""
    app.order(driver, "x", 900, at_s)
    app.pay(driver, "x", 901, at_s)
    driver.run()


def test_events_of_a_key_whose_times_are_close_are_a_pair() -> None:
    """Whichever comes first, and each with each."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    app.order(driver, "a", 2, 5)
    app.order(driver, "b", 3, 5)
    driver.run()
    app.pay(driver, "a", 4, 20)
    app.pay(driver, "a", 5, 20.001)
    driver.run()
    app.order(driver, "a", 6, 21)
    driver.run()
    assert app.pairs(driver) == [(1, 4), (2, 4), (2, 5), (6, 4), (6, 5)]


def test_an_event_without_a_partner_is_unmatched_once_its_time_is_over() -> None:
    """Strictly: an event that comes when the clock is exactly there still matches."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    app.pay(driver, "b", 2, 0)
    passed(driver, app, WAIT_S)
    assert app.alone(driver) == []
    passed(driver, app, WAIT_S + 0.001)
    assert app.alone(driver) == [("left", 1), ("right", 2)]


def test_outputs_have_the_later_time_of_a_pair_and_the_own_time_of_an_unmatched_event() -> None:
    """So no output is before its events."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 7)
    driver.run()
    app.pay(driver, "a", 2, 3)
    driver.run()
    passed(driver, app, 100)
    passed(driver, app, 200)
    assert driver.outputs(app.matched)[0].timestamp_ms == START_MS + 7_000
    assert {event.timestamp_ms for event in driver.outputs(app.unmatched)} == set()
    app.pay(driver, "c", 3, 201)
    passed(driver, app, 300)
    assert [event.timestamp_ms for event in driver.outputs(app.unmatched)] == [START_MS + 201_000]


def test_a_late_event_meets_what_is_still_stored() -> None:
    """There is no class of late events: nothing is dropped silently."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 15)
    passed(driver, app, 35)
    app.pay(driver, "a", 2, 0)
    driver.run()
    assert app.pairs(driver) == [(900, 901), (1, 2)]
    assert app.alone(driver) == []


def test_a_late_event_without_a_partner_is_unmatched_at_once() -> None:
    """It waits for nothing. An event that has expired is met by nothing, either."""
    app = JoinApp()
    driver = app.driver()
    passed(driver, app, 100)
    app.pay(driver, "a", 1, 0)
    driver.run()
    assert app.alone(driver) == [("right", 1)]
    app.order(driver, "a", 2, 0)
    driver.run()
    assert app.alone(driver) == [("right", 1), ("left", 2)]
    assert app.pairs(driver) == [(900, 901)]


def test_an_event_that_has_expired_is_not_matched_while_it_is_stored() -> None:
    """All are one batch, so its unmatched call comes later."""
    app = JoinApp()
    driver = app.driver()
    driver.run()
    app.order(driver, "a", 1, 0)
    app.order(driver, "x", 3, 100)
    driver.run()
    app.pay(driver, "x", 2, 100)
    app.pay(driver, "a", 4, 1)
    driver.run()
    assert sorted(app.pairs(driver)) == [(3, 2)]
    assert sorted(app.alone(driver)) == [("left", 1), ("right", 4)]


def test_nothing_is_left_of_keys_that_were_seen_once() -> None:
    """Matched or not: neither rows nor entries of the index."""
    app = JoinApp()
    driver = app.driver()
    for number in range(200):
        app.order(driver, f"key-{number}", number, number / 10)
        if number % 2:
            app.pay(driver, f"key-{number}", 1_000 + number, number / 10)
    driver.run()
    assert len(driver.joins(app.join)) == 300
    driver.clock.set_wall_ms(START_MS + 3_600_000)
    driver.advance(IDLE_S + 120)
    assert len(app.pairs(driver)) == len(app.alone(driver)) == 100
    assert len(driver.stores.contents(driver.task().id)) == 1  # the clock


@pytest.mark.parametrize("step", [Step.AFTER_ENTRY, Step.AFTER_COMMIT, Step.AFTER_APPLY])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_an_event_is_matched_or_unmatched_once_across_a_crash(step: Step, empty_disk: bool) -> None:
    """Its output, its mark or its removal, and the clock are one commit."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    app.order(driver, "b", 2, 0)
    driver.run()
    app.pay(driver, "a", 3, 4)
    driver.crash_at(step)
    driver.run()
    driver.restart(empty_disk=empty_disk)
    driver.run()
    app.order(driver, "x", 900, 100)
    app.pay(driver, "x", 901, 100)
    driver.crash_at(step, nth=2)
    driver.run()
    driver.restart(empty_disk=empty_disk)
    driver.run()
    assert app.pairs(driver) == [(1, 3), (900, 901)]
    assert app.alone(driver) == [("left", 2)]


def test_a_match_that_raises_is_an_error_of_its_record() -> None:
    """All its pairs are undone. A replay of its dead letter meets what is still stored."""
    app = JoinApp(on_error="dead_letter", retries=1, retry_delay_s=0)
    app.broken = {3}
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    app.order(driver, "a", 2, 1)
    driver.run()
    app.pay(driver, "a", 3, 2)
    app.pay(driver, "a", 4, 3)
    driver.run()
    assert app.pairs(driver) == [(1, 4), (2, 4)]
    (letter,) = driver.dead_letters()
    headers = dict(letter.headers)
    assert (letter.value, headers["dead-letter-topic"]) == (b"3", b"payments")
    assert headers["dead-letter-handler"] == b"join pairs"
    app.broken.clear()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.pairs(driver)[2:] == [(1, 3), (2, 3)]


def test_an_unmatched_call_that_raises_becomes_a_dead_letter_of_its_side() -> None:
    """A replay calls the function with the same event and effect key, also when its row is gone."""
    app = JoinApp(on_error="dead_letter")
    app.broken = {1}
    driver = app.driver()
    driver.send(
        app.orders, "a", 1, timestamp_ms=START_MS, headers=[("trace", b"t"), ("none", None)], event_id=b"i"
    )
    app.order(driver, "a", 2, 1)
    passed(driver, app, 100)
    assert app.alone(driver) == [("left", 2)]
    (letter,) = driver.dead_letters()
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"a", b"1", START_MS)
    assert dict(letter.headers)["dead-letter-topic"] == b"@join/pairs/left"
    assert dict(letter.headers)["trace"] == b"t"
    app.broken.clear()
    assert driver.replay_dead_letters() == 1
    driver.run()
    assert app.alone(driver) == [("left", 2), ("left", 1)]
    assert driver.outputs(app.unmatched)[-1].timestamp_ms == START_MS
    assert app.effect_keys[-1] == app.effect_keys[0] != app.effect_keys[1]


def test_an_unmatched_call_that_raises_can_stop_its_partition() -> None:
    """The event is kept, and called again after a restart."""
    app = JoinApp()
    app.broken = {1}
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    app.order(driver, "b", 2, 0)
    app.order(driver, "x", 900, 100)
    app.pay(driver, "x", 901, 100)
    with pytest.raises(HandlerError, match=r"@join/pairs/left\[0\] offset 0 cannot be processed by .*no_pay"):
        driver.run()
    app.broken.clear()
    driver.restart(empty_disk=True)
    driver.run()
    assert app.alone(driver) == [("left", 1), ("left", 2)]


def test_an_unmatched_event_looks_like_the_event_that_it_was() -> None:
    """Its place, headers and event time are those of the record, and it can be counted in a window."""
    app = App("alone")
    left = app.topic("left", key=str, value=int, event_time_ms=lambda event: START_MS + event.value)
    right = app.topic("right", key=str, value=int)
    results = app.topic("results", key=str, value=int)
    counts = app.window("counts", key=str, value=int, size=Tumbling(3_600), grace_s=600, default=0)
    join = app.join("pairs", left, right, within_s=1, grace_s=0)
    seen: list[Any] = []

    @join.on_unmatched_left
    def alone(event: Event[str, int], ctx: Context) -> None:
        seen.append((event.topic, event.partition, event.offset, event.id, event.timestamp_ms))
        for row in ctx.window(counts).rows(event):
            row.value += 1
        ctx.send(results, event.key, event.value)

    driver = TestDriver(app)
    driver.send(left, "a", 5, timestamp_ms=START_MS + 77, event_id=b"i")
    driver.run()
    driver.send(left, "x", 9_000)
    driver.send(right, "x", 9_000, timestamp_ms=START_MS + 9_000)
    driver.run()
    assert seen == [("left", 0, 0, b"i", START_MS + 77)]
    assert [event.timestamp_ms for event in driver.outputs(results)] == [START_MS + 5]
    assert driver.windows(counts) == {("a", START_MS - START_MS % 3_600_000): 1}


def test_both_events_of_a_pair_can_be_counted_in_windows() -> None:
    """Each has its own time there, whatever the time of the outputs is."""
    app = App("pairs")
    left = app.topic("left", key=str, value=int)
    right = app.topic("right", key=str, value=int, event_time_ms=lambda event: START_MS + event.value)
    minutes = app.window("minutes", key=str, value=int, size=Tumbling(60), grace_s=600, default=0)
    join = app.join("pairs", left, right, within_s=200, grace_s=0)

    @join.on_match
    def match(one: Event[str, int], two: Event[str, int], ctx: Context) -> None:
        for event in (one, two):
            for row in ctx.window(minutes).rows(event, key=event.topic):
                row.value += 1

    driver = TestDriver(app)
    driver.send(left, "a", 0, timestamp_ms=START_MS + 61_000)
    driver.run()
    driver.send(right, "a", 5)
    driver.run()
    assert driver.windows(minutes) == {("left", START_MS + 60_000): 1, ("right", START_MS): 1}


def test_the_events_of_a_hot_key_are_capped_and_counted() -> None:
    """The oldest one waits no longer: it is unmatched at once, or has matched."""
    app = JoinApp(max_events=2)
    driver = app.driver()
    scrape = Scraper(driver)
    for number in (1, 2, 3):
        app.order(driver, "a", number, number)
    driver.run()
    assert app.alone(driver) == [("left", 1)]
    assert driver.joins(app.join) == {("left", "a"): [2, 3]}
    app.pay(driver, "a", 4, 4)
    driver.run()
    app.order(driver, "a", 5, 5)
    driver.run()
    assert app.pairs(driver) == [(2, 4), (3, 4), (5, 4)]
    assert app.alone(driver) == [("left", 1)]
    assert scrape().value("pipeline_join_events_removed_total") == 2


def test_events_that_wait_longer_are_not_called_twice_if_the_time_is_raised() -> None:
    """What has expired stays expired."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    passed(driver, app, 100)
    longer = JoinApp(within_s=1_000)
    driver.restart(app=longer.app)
    driver.run()
    app.pay(driver, "a", 2, 1)
    driver.run()
    assert longer.alone(driver) == [("left", 1), ("right", 2)]
    passed(driver, longer, 400)


def test_a_reset_removes_waiting_events_and_their_index() -> None:
    """Otherwise, an entry of a row that does not exist would be reached, or an event would be unmatched twice."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    driver.run()
    driver.reset()
    driver.run()
    assert driver.joins(app.join) == {("left", "a"): [1]}
    passed(driver, app, 100)
    assert app.alone(driver) == [("left", 1)]


def test_waiting_events_are_in_checkpoints() -> None:
    """A worker with an empty disk takes them from there: the journal before it is deleted."""
    app = JoinApp()
    driver = app.driver(settings=EAGER)
    app.order(driver, "a", 1, 0)
    app.order(driver, "b", 2, 0)
    driver.run()
    app.pay(driver, "b", 3, 1)
    driver.run()
    driver.advance(5)
    task = driver.task()
    assert isinstance(task, Task)
    assert task.applied.checkpoints
    driver.restart(empty_disk=True)
    passed(driver, app, 100)
    assert app.pairs(driver) == [(2, 3), (900, 901)]
    assert app.alone(driver) == [("left", 1)]


def test_inputs_of_a_join_must_be_co_partitioned() -> None:
    """Events of one key would be in tasks that do not know each other."""
    app = JoinApp()
    driver = app.driver(partitions=2)
    driver.broker.delete("payments")
    driver.broker.create(TopicSpec("payments", 3))
    with pytest.raises(
        ConfigError, match=r"must have the same number of partitions: orders has 2, payments has 3"
    ):
        driver.run()


def test_other_topics_or_a_removed_join_are_refused() -> None:
    """Events that wait are those of the old topics."""
    app = JoinApp()
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    driver.run()
    other = App("joins")
    orders, payments = (other.topic(name, key=str, value=int) for name in ("orders", "payments"))
    other.handler(orders)(lambda _event, _ctx: None)
    other.handler(payments)(lambda _event, _ctx: None)
    driver.restart(app=other)
    with pytest.raises(ConfigError, match=r"join pairs:left has state, and the app no longer declares it"):
        driver.run()
    other.join("pairs", payments, orders, within_s=1, grace_s=0)
    driver.restart(app=other)
    with pytest.raises(ConfigError, match="the topics or the key of join pairs:left changed"):
        driver.run()


def test_a_task_with_many_due_events_continues_with_records() -> None:
    """Due steps are bounded, and events that have matched are removed without a call."""
    app = JoinApp()
    driver = app.driver()
    for number in range(300):
        app.order(driver, "hot" if number % 3 else f"key-{number}", number, number / 100)
    app.pay(driver, "hot", 1_000, 1)
    driver.run()
    assert len(app.pairs(driver)) == 200
    passed(driver, app, 100)
    assert len(app.alone(driver)) == 100
    assert driver.task().id == TaskId("joins", "main", 0)


def test_a_replay_whose_event_time_cannot_be_computed_is_a_dead_letter_again() -> None:
    """Its time is computed before the function is called: the error belongs to it, and must not end the worker."""
    app, failing = App("joins"), True

    def time_of(event: Event[str, int]) -> int:
        if failing and event.value == 1 and driver.dead_letters():
            raise ValueError("no time")
        return event.timestamp_ms

    orders = app.topic("orders", key=str, value=int, event_time_ms=time_of)
    payments = app.topic("payments", key=str, value=int)
    alone = app.topic("alone", key=str, value=int)
    join = app.join("pairs", orders, payments, within_s=WITHIN_S, grace_s=GRACE_S, on_error="dead_letter")

    @join.on_unmatched_left
    def unpaid(order: Event[str, int], ctx: Context) -> None:
        ctx.send(alone, order.key, order.value)
        if not driver.dead_letters() and order.value == 1:
            raise ValueError("no")

    driver = TestDriver(app)
    driver.send(orders, "a", 1, timestamp_ms=START_MS)
    for topic in (orders, payments):
        driver.send(topic, "x", 2, timestamp_ms=START_MS + 100_000)
    driver.run()
    driver.replay_dead_letters()
    driver.run()
    letters = driver.dead_letters()
    assert [dict(letter.headers)["dead-letter-topic"] for letter in letters] == [b"@join/pairs/left"] * 2
    assert b"no time" in (dict(letters[1].headers)["dead-letter-error"] or b"")
    failing = False
    driver.replay_dead_letters()
    driver.run()
    assert 1 in [event.value for event in driver.outputs(alone)]


def test_a_waiting_event_that_cannot_be_decoded_is_named_and_shown_as_it_is() -> None:
    """Its topic has another type since. The error belongs to the record that meets it, which is not to blame."""

    def app_of(value: Any) -> tuple[App, Any, Any, Any]:
        app = App("joins")
        orders = app.topic("orders", key=str, value=value)
        payments = app.topic("payments", key=str, value=int)
        join = app.join("pairs", orders, payments, within_s=WITHIN_S, grace_s=GRACE_S, on_error="dead_letter")
        join.on_match(lambda _order, _payment, _ctx: None)
        return app, orders, payments, join

    app, orders, _, _ = app_of(str)
    driver = TestDriver(app)
    driver.send(orders, "a", "text", timestamp_ms=START_MS)
    driver.run()
    app, _, payments, join = app_of(int)
    driver.restart(app=app)
    driver.send(payments, "a", 1, timestamp_ms=START_MS)
    driver.run()
    (letter,) = driver.dead_letters()
    assert b"the waiting event orders[0] offset 0 cannot be decoded" in (
        dict(letter.headers)["dead-letter-error"] or b""
    )
    assert driver.joins(join) == {("left", "a"): [b'"text"']}


def test_an_unmatched_event_that_is_late_for_a_window_names_its_topic() -> None:
    """Not the pseudo-topic of the call, which no one can look up."""
    app = JoinApp()
    late = app.app.topic("late", key=str, value=int)
    window: Any = app.app.window(
        "counts", key=str, value=int, size=Tumbling(5), grace_s=0, default=0, late_to=late
    )

    def count(order: Event[str, int], ctx: Context) -> None:
        assert not ctx.window(window).rows(order)

    other = app.app.join("late", app.orders, app.payments, within_s=WITHIN_S, grace_s=GRACE_S)
    other.on_unmatched_left(count)
    driver = app.driver()
    app.order(driver, "a", 1, 0)
    passed(driver, app, 100)
    (record,) = driver.outputs(late)
    headers = dict(record.headers)
    assert (headers["late-topic"], headers["late-offset"]) == (b"orders", b"0")
