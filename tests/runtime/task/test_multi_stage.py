"""Apps of several stages: groups that read what other groups write, a join of two inputs, and cycles."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.orders.app import (
    Order,
    Payment,
    Total,
    accounts,
    app,
    by_country,
    by_customer,
    country_totals,
    customer_totals,
    orders,
    paid_orders,
    payments,
)
from pipeline import App, Context, Event
from pipeline.config import WorkerSettings
from pipeline.errors import ConfigError, FatalTaskError, InvariantError
from pipeline.ports import Step, TopicSpec
from pipeline.testing import TestDriver
from tests.support.runtime.orders import Sent, check_outputs
from tests.support.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS, SINK_STEPS

NEVER_HERE = {Step.DURING_REPLAY, *CHECKPOINT_STEPS, *DOWNLOAD_STEPS, *SINK_STEPS}
START_ONLY = {Step.BEFORE_GENESIS, Step.DURING_GENESIS, Step.AFTER_GENESIS}


class Shop:
    """The orders app in memory, and what it was sent."""

    def __init__(self, *, partitions: int = 3, seed: int = 0, deferred: bool = False) -> None:
        limits = WorkerSettings(worker_id="test", max_records_per_commit=5, max_poll_records=3)
        self.driver = TestDriver(app, partitions=partitions, seed=seed, deferred=deferred, settings=limits)
        self.sent = Sent(seed)

    def send(self, count: int) -> None:
        for number, what in self.sent.draw(count):
            if isinstance(what, Order):
                self.driver.send(orders, number, what)
            else:
                self.driver.send(payments, number, what)

    def check(self, *, complete: bool = True) -> None:
        driver = self.driver
        rising: dict[str, list[Total]] = defaultdict(list)
        for event in driver.outputs(country_totals):
            rising[event.key].append(event.value)
        check_outputs(
            self.sent,
            [event.value for event in driver.outputs(paid_orders)],
            [event.value for event in driver.outputs(customer_totals)],
            rising,
            complete=complete,
        )
        if complete:
            assert driver.table(by_customer) == self.sent.by_customer()
            assert driver.table(by_country) == self.sent.by_country()
            left = self.sent.orders.keys() - {n for n, o in self.sent.orders.items() if self._settled(n, o)}
            assert driver.table(accounts).keys() == left

    def _settled(self, number: str, order: Order) -> bool:
        return sum(self.sent.payments[number]) >= order.cents


def test_three_stages_and_a_join_give_what_a_fold_gives() -> None:
    """Each stage sees each record of the one before it once, whichever of an order's two halves came first."""
    shop = Shop()
    shop.send(60)
    shop.driver.run()
    shop.check()


@pytest.mark.parametrize("step", [step for step in Step if step not in NEVER_HERE])
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_any_stage_leaves_all_stages_exact(step: Step, empty_disk: bool) -> None:
    """A stage that is ahead of its neighbours after a restart must not see or send anything twice."""
    shop = Shop()
    for nth in (1,) if step in START_ONLY else (1, 4, 9):
        shop.send(15)
        shop.driver.crash_at(step, nth=nth)
        shop.driver.run()
        assert shop.driver.crashed
        shop.check(complete=False)
        shop.driver.restart(empty_disk=empty_disk)
        shop.driver.clear_crashes()
    shop.driver.run()
    shop.check()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    crashes=st.lists(
        st.tuples(
            st.sampled_from([s for s in Step if s not in NEVER_HERE]), st.integers(1, 12), st.booleans()
        ),
        max_size=6,
    ),
)
def test_crashes_in_any_order_of_events_leave_all_stages_exact(
    seed: int, crashes: list[tuple[Step, int, bool]]
) -> None:
    """With commits and restores of all groups running beside each other, in an order drawn from the seed."""
    shop = Shop(seed=seed, deferred=True)
    for step, nth, empty_disk in crashes:
        shop.send(8)
        shop.driver.crash_at(step, nth=nth)
        shop.driver.run()
        shop.check(complete=False)
        shop.driver.restart(empty_disk=empty_disk)
    shop.driver.clear_crashes()
    shop.send(8)
    shop.driver.run()
    shop.check()


@pytest.mark.parametrize("step", [Step.AFTER_FLUSH, Step.DURING_COMMIT])
def test_a_stage_never_sees_what_the_one_before_it_has_not_committed(step: Step) -> None:
    """Outputs of an open transaction are in the topic already; they may yet be aborted."""
    seen: list[int] = []
    chain = App("chain")
    numbers = chain.topic("numbers", key=str, value=int)
    doubled = chain.topic("doubled", key=str, value=int)
    second = chain.group("second")

    @chain.handler(numbers)
    def double(event: Event[str, int], ctx: Context) -> None:
        ctx.send(doubled, event.key, 2 * event.value)

    @second.handler(doubled)
    def look(event: Event[str, int], _ctx: Context) -> None:
        seen.append(event.value)

    driver = TestDriver(chain)
    driver.run()
    driver.send(numbers, "a", 1)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    assert [record.value() for record in driver.broker.records("doubled", committed=False)] == [b"2"]
    only_second = App("chain")
    topic = only_second.topic("doubled", key=str, value=int)
    only_second.group("second").handler(topic)(look)
    driver.restart(app=only_second)  # only the reader is alive
    driver.run()
    assert seen == []  # the transaction is open, and nobody may end it but its owner
    driver.restart(app=chain)
    driver.run()
    assert seen == [2]


@pytest.mark.parametrize("seed", range(12))
def test_latest_is_where_every_stage_stood_when_the_app_began(seed: int) -> None:
    """A stage that goes live after the one before it has begun to write must not skip what that wrote."""
    shop = Shop(seed=seed, deferred=True)
    shop.driver.settings = replace(shop.driver.settings, start="latest")
    shop.driver.send(payments, "before", Payment(1))
    worker = shop.driver.worker
    shop.send(10)
    while not worker.progress().live:
        shop.driver.step()
        shop.driver.run_deferred()
        shop.driver.clock.advance(0.5)
    shop.driver.run()
    shop.check()


def test_a_group_may_feed_itself_and_groups_may_feed_each_other_in_a_circle() -> None:
    """Each hop is a commit like any other, so a cycle is exact; that it ends is the handlers' business."""
    loop = App("loop")
    numbers = loop.topic("numbers", key=str, value=int)
    back = loop.topic("back", key=str, value=int)
    ended = loop.topic("ended", key=str, value=int)
    steps = loop.table("steps", key=str, value=int)
    other = loop.group("other")

    @loop.handler(numbers)
    def count_down(event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(steps)
        table[event.key] = table.get(event.key, 0) + 1
        if event.value == 0:
            ctx.send(ended, event.key, table[event.key])
        elif event.value % 3:
            ctx.send(numbers, event.key, event.value - 1)
        else:
            ctx.send(back, event.key, event.value - 1)

    @other.handler(back)
    def send_back(event: Event[str, int], ctx: Context) -> None:
        ctx.send(numbers, event.key, event.value)

    driver = TestDriver(loop, partitions=3)
    for number in range(5):
        driver.send(numbers, f"k{number}", 10)
    for nth, step in enumerate([Step.AFTER_FLUSH, Step.AFTER_COMMIT, Step.AFTER_APPLY, Step.BEFORE_ACQUIRE]):
        driver.crash_at(step, nth=2 + nth)
        driver.run()
        driver.restart(empty_disk=nth % 2 == 0)
    driver.clear_crashes()
    driver.run()
    assert sorted((event.key, event.value) for event in driver.outputs(ended)) == [
        (f"k{number}", 11) for number in range(5)
    ]
    assert driver.table(steps) == {f"k{number}": 11 for number in range(5)}


def test_a_cycle_that_never_ends_is_said_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test it must not run forever."""
    monkeypatch.setattr("pipeline.testing.simulated_process.MAX_STEPS", 500)
    loop = App("loop")
    numbers = loop.topic("numbers", key=str, value=int)

    @loop.handler(numbers)
    def again(event: Event[str, int], ctx: Context) -> None:
        ctx.send(numbers, event.key, event.value)

    driver = TestDriver(loop)
    driver.send(numbers, "a", 1)
    with pytest.raises(InvariantError, match="do its handlers feed themselves"):
        driver.run()


def test_a_join_of_topics_with_different_counts_names_group_topics_and_counts() -> None:
    """The two halves of an order would be in different tasks."""
    driver = TestDriver(app, partitions=3)
    driver.broker.delete(payments.name)
    driver.broker.create(TopicSpec(payments.name, 4))
    with pytest.raises(
        ConfigError,
        match=r"app orders, group main: .* the same number of partitions: orders has 3, payments has 4",
    ) as caught:
        driver.run()
    assert caught.value.hint is not None
    assert "runbooks/partitions-changed.md" in caught.value.hint


@pytest.mark.parametrize("grown", [paid_orders, customer_totals])
def test_a_topic_between_groups_that_gets_partitions_stops_those_who_write_it_and_those_who_read_it(
    grown: object,
) -> None:
    """Its writers use the new number of partitions, so keys would leave the reader's rows."""
    name = getattr(grown, "name", "")
    shop = Shop()
    shop.send(20)
    shop.driver.run()
    shop.driver.broker.add_partitions(name, 1)
    shop.driver.clock.advance(shop.driver.settings.check_interval_s)
    with pytest.raises(FatalTaskError, match=f"topic {name} had 3 partitions and has 4") as caught:
        shop.driver.run()
    assert caught.value.hint == "follow runbooks/partitions-changed.md"
    stopped = {group for group, _ in shop.driver.failures}
    assert stopped == ({"main", "customers"} if grown is paid_orders else {"customers", "countries"})
    shop.driver.restart()
    with pytest.raises(ConfigError, match=r"topic [a-z-]+ had 3 partitions and has 4") as refused:
        shop.driver.run()
    assert name in refused.value.message
    shop.check()


def test_an_output_that_no_group_reads_stops_its_writers_once() -> None:
    """Its readers' keys move; whether they can cope only a person knows, and says so by the next start."""
    shop = Shop()
    shop.send(20)
    shop.driver.run()
    shop.driver.broker.add_partitions(country_totals.name, 1)
    shop.driver.clock.advance(shop.driver.settings.check_interval_s)
    with pytest.raises(
        FatalTaskError, match="topic country-totals had 3 partitions and has 4, and this task"
    ):
        shop.driver.run()
    assert {group for group, _ in shop.driver.failures} == {"countries"}
    shop.driver.restart()
    shop.send(20)
    shop.driver.run()
    assert shop.driver.table(by_country) == shop.sent.by_country()
