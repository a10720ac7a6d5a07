"""A load that is held to a rate: `pipeline produce --rate`."""

from __future__ import annotations

import pytest

from pipeline.ops.loading.loader import RateLimit, paced_rows
from pipeline.testing import ManualClock


def test_a_load_takes_as_long_as_its_rate_says_and_makes_up_for_what_was_late() -> None:
    """A rehearsal at the rate of every day needs that rate, also on the average."""
    clock = ManualClock()
    rate_limit = RateLimit(1_000, clock)
    rate_limit(500)
    assert clock.monotonic_s() == pytest.approx(0.5)
    clock.advance(2.0)  # a slow commit
    rate_limit(1_000)
    rate_limit(2_000)
    assert clock.monotonic_s() == pytest.approx(2.5)
    rate_limit(4_000)
    assert clock.monotonic_s() == pytest.approx(4.0)


def test_slow_loads_commit_often() -> None:
    """Ten thousand rows at once every minute are not a stream."""
    assert paced_rows(1_000, 10_000) == 100
    assert paced_rows(5, 10_000) == 1
    assert paced_rows(1_000_000, 500) == 500
