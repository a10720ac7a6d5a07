"""`Histogram`: durations in buckets. Not locked: the `Meter` that owns it is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts observed values by upper bound.

    Args:
        bounds: The upper bounds of the buckets in increasing order. A value equal to a bound is in its bucket. A last
            bucket without a bound is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """The number of observed values."""
        return sum(self.counts)

    def copy(self) -> Histogram:
        """A copy that later observations do not change."""
        copied = Histogram(self.bounds)
        copied.counts, copied.total = list(self.counts), self.total
        return copied

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, number of values up to it), as Prometheus writes them; the last bound is `+Inf`."""
        found, seen = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            seen += count
            found.append((bound, float(seen)))
        return found
