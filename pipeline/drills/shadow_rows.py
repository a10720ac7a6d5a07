"""Finds the input offset at which a row of the live app and of its shadow first differs: `first_offset`.

A journal has the value of a row after each commit that wrote it, but not within a commit. So the value is known at the
positions between two commits that wrote it. The first difference lies between the last position at which both values
are known and equal, and the first one at which both are known and differ. The shadow app commits at positions of the
live app, so this interval is at most a commit of the shadow app.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.ops.history.row_changes import RowHistory

__all__ = ["OffsetRange", "first_offset"]


class OffsetRange(NamedTuple):
    """The input records of which one causes the first difference: offsets from `first` to `last`."""

    first: int
    last: int


class _Known(NamedTuple):
    """The row has this value at each position from `start` to `end`."""

    start: int
    end: int
    value: bytes | None


def first_offset(live: RowHistory, shadow: RowHistory, topic: str, start: int, end: int) -> OffsetRange:
    """The range of the first difference of a row between the positions `start` and `end` of its only input topic."""
    equal, different = start, end
    ours, theirs = _known(live, topic, start, end), list(_known(shadow, topic, start, end))
    at = 0
    for mine in ours:
        while at < len(theirs) and theirs[at].end < mine.start:
            at += 1
        for other in theirs[at:]:
            if other.start > mine.end:
                break
            low, high = max(mine.start, other.start), min(mine.end, other.end)
            if mine.value != other.value:
                different = min(different, low)
                break
            equal = high
        if different < end:
            break
    writes = [first for first, last in _writes(live, topic) if last > equal and first < different]
    writes += [first for first, last in _writes(shadow, topic) if last > equal and first < different]
    first = max(equal, min(writes, default=equal))
    return OffsetRange(first, max(first, different - 1))


def _writes(history: RowHistory, topic: str) -> Iterator[tuple[int, int]]:
    """(first position, next position) of each commit that changed the row."""
    for change in history.changes:
        after = change.entry.entry.positions.get(topic, 0)
        before = change.before.get(topic, after) if change.before is not None else after
        yield before, after


def _known(history: RowHistory, topic: str, start: int, end: int) -> Iterator[_Known]:
    """The values of the row that are known, by position, up to `end`."""
    began, value = start, None
    for change, (before, after) in zip(history.changes, _writes(history, topic), strict=True):
        if after <= start:
            value = change.new.data
            continue
        if before >= began:
            yield _Known(began, min(before, end), value)
        began, value = after, change.new.data
        if began >= end:
            break
    if began <= end:
        yield _Known(began, end, value)
