"""Random histories of a Faust application with `group_by` and `take`: crashes at any step, and times that are due."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.testing import Step, TestDriver
from tests.faust.test_agents import Order, new_app, values

STEPS = [Step.AFTER_OUTPUTS, Step.AFTER_FLUSH, Step.DURING_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY]
INPUTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=9)
CRASH = st.none() | st.tuples(st.sampled_from(STEPS), st.integers(1, 4))
ROUND = st.tuples(INPUTS, CRASH, st.booleans(), st.sampled_from([0, 3, 6]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rounds=st.lists(ROUND, min_size=1, max_size=5),
    records=st.sampled_from([1, 2, 1000]),
)
def test_batches_behind_a_repartition_topic_contain_each_event_once(
    rounds: list[tuple[list[tuple[str, int]], tuple[Step, int] | None, bool, int]], records: int
) -> None:
    """In the order of the input, for each new key, whatever crashes; and the table agrees."""
    app = new_app()
    orders, target = app.topic("orders", value_type=Order), app.topic("target", value_type=Order)
    totals = app.Table("totals", default=int)

    @app.agent(orders)
    async def batches(stream: Any) -> None:
        async for batch in stream.group_by(Order.account).take(3, within=5):
            assert 1 <= len(batch) <= 3
            for order in batch:
                totals[order.account] += order.amount
                await target.send(key=order.account, value=order)

    limits = WorkerSettings(worker_id="test", max_records_per_commit=records)
    driver = TestDriver(app, partitions=3, settings=limits)
    expected: dict[str, list[int]] = {}
    driver.run()
    for inputs, crash, empty_disk, seconds in rounds:
        if crash is not None:
            driver.crash_at(crash[0], nth=crash[1])
        for account, amount in inputs:
            # One partition, so that the order of the events of an account is known.
            driver.send(orders, None, Order(account, amount), partition=0)
            expected.setdefault(account, []).append(amount)
        driver.advance(seconds)
        if driver.crashed:
            driver.restart(empty_disk=empty_disk)
        driver.clear_crashes()
    driver.advance(12)
    found: dict[str, list[int]] = {}
    for order in values(driver, target):
        found.setdefault(order.account, []).append(order.amount)
    assert found == expected
    assert driver.table(totals) == {account: sum(amounts) for account, amounts in expected.items()}
