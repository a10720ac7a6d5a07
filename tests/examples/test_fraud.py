"""The example of overlapping windows: alerts for the payments of five minutes."""

from __future__ import annotations

import pytest

from examples.fraud.app import Alert, Payment, Revenue, alerts, app, late_payments, payments, revenue
from pipeline.testing import Step, TestDriver

pytestmark = pytest.mark.unverified  # a revenue is made from several payments

TEN_MS = 1_767_866_400_000
MINUTE_MS = 60_000


def _driver(*paid: tuple[str, int, float]) -> TestDriver:
    """A driver to which payments were sent: account, cents, minutes after ten."""
    driver = TestDriver(app)
    driver.clock.set_wall_ms(TEN_MS + 60 * MINUTE_MS)
    for account, cents, minutes in paid:
        driver.send(payments, account, Payment(cents, TEN_MS + int(minutes * MINUTE_MS)))
    return driver


def _sent(driver: TestDriver) -> list[tuple[str | None, Alert]]:
    return [(event.key, event.value) for event in driver.outputs(alerts)]


def _alert(start: int, payments: int, cents: int) -> Alert:
    """The alert of the window that begins at a minute."""
    return Alert(TEN_MS + start * MINUTE_MS, TEN_MS + (start + 5) * MINUTE_MS, Revenue(payments, cents))


@pytest.mark.parametrize("step", [Step.BEFORE_BEGIN, Step.AFTER_FLUSH, Step.AFTER_COMMIT])
@pytest.mark.parametrize("before", [2, 3, 4])
def test_each_window_above_the_limit_has_one_alert(step: Step, before: int) -> None:
    """Also across a crash and the loss of the disk: before the payment that passes the limit, at it, and after it."""
    paid = [("ann", 40_000, 2.5), ("bob", 90_000, 2.6), ("ann", 50_000, 4.2), ("ann", 30_000, 6.3)]
    driver = _driver(*paid[:before])
    driver.run()
    for account, cents, minutes in [*paid[before:], ("ann", 100, 6.4)]:
        driver.send(payments, account, Payment(cents, TEN_MS + int(minutes * MINUTE_MS)))
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=True)
    driver.run()
    assert _sent(driver) == [("ann", _alert(2, 3, 120_000))]

    driver.send(payments, "ann", Payment(25_000, TEN_MS + int(7.1 * MINUTE_MS)))
    driver.run()
    assert _sent(driver)[1:] == [("ann", _alert(3, 4, 105_100)), ("ann", _alert(4, 4, 105_100))]


def test_a_payment_after_the_end_of_its_windows_is_late() -> None:
    """It raises no alert, and no window keeps a row."""
    driver = _driver(("ann", 90_000, 0), ("bob", 1, 20), ("ann", 90_000, 0.5))
    driver.run()
    assert _sent(driver) == []
    assert [event.key for event in driver.outputs(late_payments)] == ["ann"]
    driver.advance(3_600)
    assert driver.windows(revenue) == {}
