"""Uploads leave room for the work that they are beside."""

from __future__ import annotations

from pipeline.runtime.checkpoints.upload import Throttle
from pipeline.testing import ManualClock


def test_transfers_take_the_time_that_the_limit_gives_them() -> None:
    """Ten pieces of half a second: the first goes at once, and so does nothing after it."""
    clock = ManualClock()
    throttle = Throttle(1_000, clock)
    for _ in range(10):
        throttle.take(500)
    assert clock.monotonic_s() == 4.5


def test_what_was_not_used_is_not_made_up_for() -> None:
    """An hour without an upload must not be followed by an hour's worth at once."""
    clock = ManualClock()
    throttle = Throttle(1_000, clock)
    clock.advance(3_600.0)
    throttle.take(1_000)
    throttle.take(1_000)
    assert clock.monotonic_s() == 3_601.0


def test_no_limit_takes_no_time() -> None:
    """The default."""
    clock = ManualClock()
    Throttle(0, clock).take(1 << 40)
    assert clock.monotonic_s() == 0.0
