"""One budget for the decoded values that all tasks of a process keep in memory: `CacheBudget`.

A table measures its values by samples, at the end of each commit, so that a record costs nothing. When all tables
together take more than the budget, the largest ones are cut to one size, at which all take `KEPT` of the budget
together. So a table that takes less than an equal share keeps all of its values, however many tasks there are. Writes
that are not sealed are never dropped. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

__all__ = ["KEPT", "CacheBudget", "Cached", "equal_share"]

KEPT = 7 / 8


class Cached(Protocol):
    """A part of the cache: a table of a task."""

    def measure(self) -> int:
        """About the bytes that it takes."""
        ...

    def trim(self, most_bytes: int) -> None:
        """Drop the oldest values, until it takes about `most_bytes`."""
        ...


class CacheBudget:
    """The budget of one process."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sizes: dict[Cached, int] = {}
        self._total_bytes = 0

    @property
    def total_bytes(self) -> int:
        """About the bytes that all tables take, as of their last commits."""
        return self._total_bytes

    def committed(self, tables: Iterable[Cached]) -> None:
        """Measure the tables of a task whose commit has ended, and trim all tables if they are over the budget."""
        for table in tables:
            self._update(table, table.measure())
        if self._total_bytes > self._limit_bytes:
            self._trim()

    def forget(self, tables: Iterable[Cached]) -> None:
        """The tables of a task that has ended. Those that are not known are ignored."""
        for table in tables:
            self._total_bytes -= self._sizes.pop(table, 0)

    def _trim(self) -> None:
        most_bytes = equal_share(self._sizes.values(), int(self._limit_bytes * KEPT))
        for table, size in list(self._sizes.items()):
            if size > most_bytes:
                table.trim(most_bytes)
                self._update(table, table.measure())

    def _update(self, table: Cached, size: int) -> None:
        self._total_bytes += size - self._sizes.get(table, 0)
        self._sizes[table] = size


def equal_share(sizes: Collection[int], total: int) -> int:
    """The size to which the largest must be cut, so that together they are at most `total` (max-min fairness)."""
    left, share = total, total
    for done, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - done)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)
