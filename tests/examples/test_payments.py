"""The example of joins: orders, their payments, and alerts for unpaid orders."""

from __future__ import annotations

import pytest

from examples.payments.app import (
    Order,
    Payment,
    Settled,
    app,
    orders,
    paid,
    payments,
    refunds,
    settled,
    unpaid_orders,
)
from pipeline.testing import Step, TestDriver

pytestmark = pytest.mark.unverified  # an unmatched call has no record of an input

TEN_MS = 1_767_866_400_000
MINUTE_MS = 60_000


def test_an_order_is_settled_or_reported_as_unpaid_once() -> None:
    """Across a crash and the loss of the disk, and although the input stops."""
    driver = TestDriver(app)
    driver.clock.set_wall_ms(TEN_MS + 60 * MINUTE_MS)
    for order, minutes in (("o1", 0), ("o2", 1), ("o3", 2)):
        driver.send(orders, order, Order("ann", 500, TEN_MS + minutes * MINUTE_MS))
    driver.crash_at(Step.AFTER_COMMIT, nth=2)
    driver.run()
    driver.restart(empty_disk=True)
    for order, minutes in (("o1", 9), ("o9", 3), ("o2", 14)):
        driver.send(payments, order, Payment(400, TEN_MS + minutes * MINUTE_MS))
    driver.run()
    assert [(event.key, event.value) for event in driver.outputs(settled)] == [("o1", Settled("ann", 100))]

    driver.advance(1_200)
    assert [event.key for event in driver.outputs(unpaid_orders)] == ["o2", "o3"]
    assert [event.key for event in driver.outputs(refunds)] == ["o9", "o2"]
    assert driver.joins(paid) == {}
