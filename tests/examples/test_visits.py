"""The example of sessions: visits to a web shop."""

from __future__ import annotations

import pytest

from examples.visits.app import Click, FinishedVisit, Visit, app, clicks, finished_visits, late_clicks
from pipeline.testing import Step, TestDriver

pytestmark = pytest.mark.unverified  # a visit is made from several clicks

TEN_MS = 1_767_866_400_000
MINUTE_MS = 60_000


def test_visits_are_published_once_when_they_are_over() -> None:
    """A click that arrives late connects two visits. All of it across a crash and the loss of the disk."""
    driver = TestDriver(app)
    driver.clock.set_wall_ms(TEN_MS + 200 * MINUTE_MS)
    for visitor, page, cents, minutes in (
        ("ann", "home", 0, 0),
        ("bob", "home", 0, 1),
        ("ann", "cart", 0, 31),
        ("ann", "shoes", 0, 20),
        ("ann", "pay", 4_999, 32),
        ("bob", "home", 0, 90),
        ("bob", "hats", 0, 31),
    ):
        driver.send(clicks, visitor, Click(page, cents, TEN_MS + minutes * MINUTE_MS))
    driver.crash_at(Step.AFTER_COMMIT, nth=2)
    driver.run()
    driver.restart(empty_disk=True)
    driver.run()
    assert [(event.key, event.value) for event in driver.outputs(finished_visits)] == [
        ("bob", FinishedVisit(0.0, Visit(("home",)))),
        ("ann", FinishedVisit(32 * 60.0, Visit(("home", "cart", "shoes", "pay"), 4_999))),
    ]
    assert [event.value.page for event in driver.outputs(late_clicks)] == ["hats"]

    driver.advance(3_600)
    assert driver.outputs(finished_visits)[-1].value == FinishedVisit(0.0, Visit(("home",)))
