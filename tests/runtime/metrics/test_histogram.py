"""Histograms: each value in one bucket, and cumulative counts as Prometheus writes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.metrics.meter import Histogram

BOUNDS = (0.1, 1.0, 10.0)


def test_a_value_equal_to_a_bound_is_below_it() -> None:
    """`le` means less or equal."""
    histogram = Histogram(BOUNDS)
    for value in (0.1, 0.10001, 10.0, 11.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("0.1", 1), ("1.0", 2), ("10.0", 3), ("+Inf", 4)]


@given(st.lists(st.floats(0, 100)))
def test_the_counts_are_those_of_the_values(values: list[float]) -> None:
    """Whatever is observed, in whatever order."""
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    copied = histogram.copy()
    histogram.observe(5.0)
    expected = [(str(bound), float(sum(value <= bound for value in values))) for bound in BOUNDS]
    assert copied.cumulative() == [*expected, ("+Inf", float(len(values)))]
    assert copied.count == len(values)
