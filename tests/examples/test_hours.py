"""The example of windows: totals of an hour, an alert before its end, and late orders."""

from __future__ import annotations

import pytest

from examples.hours.app import HourTotal, Order, Total, app, big_spenders, hour_totals, late_orders, orders
from pipeline.testing import Step, TestDriver

pytestmark = pytest.mark.unverified  # a total is made from several orders

TEN_MS = 1_767_866_400_000
HOUR_MS = 3_600_000


def test_hours_are_published_once_when_they_are_over() -> None:
    """Also across a crash and the loss of the disk."""
    driver = TestDriver(app)
    driver.clock.set_wall_ms(TEN_MS + 3 * HOUR_MS)
    for customer, cents, at_ms in (
        ("ann", 60_000, 0),
        ("bob", 500, 1_000),
        ("ann", 50_000, HOUR_MS - 1),
        ("ann", 700, HOUR_MS + 120_000),
        ("bob", 900, 2_000),
    ):
        driver.send(orders, customer, Order(cents, TEN_MS + at_ms))
    driver.crash_at(Step.AFTER_COMMIT, nth=2)
    driver.run()
    driver.restart(empty_disk=True)
    driver.run()
    assert [(event.key, event.value) for event in driver.outputs(hour_totals)] == [
        ("ann", HourTotal(TEN_MS, Total(2, 110_000))),
        ("bob", HourTotal(TEN_MS, Total(1, 500))),
    ]
    assert [(event.key, event.value.cents) for event in driver.outputs(big_spenders)] == [("ann", 110_000)]
    assert [(event.key, event.value.cents) for event in driver.outputs(late_orders)] == [("bob", 900)]

    driver.advance(2 * HOUR_MS / 1000)
    assert driver.outputs(hour_totals)[-1].value == HourTotal(TEN_MS + HOUR_MS, Total(1, 700))
