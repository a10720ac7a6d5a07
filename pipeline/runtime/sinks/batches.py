"""Batches of a sink task: records and what they come to, and what of it is written as one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from pipeline.api.bindings import OnError
from pipeline.api.declarations import Topic
from pipeline.ports import Record
from pipeline.ports.databases import OwnWrite, RowsWrite
from pipeline.runtime.sinks.rows import Made, RowMaker

__all__ = ["Item", "OpenBatch", "Outlet", "SinkBatch", "halves", "writes_of"]


class Outlet(NamedTuple):
    """One `group.sink(...)` of a running group."""

    topic: Topic[Any, Any]
    maker: RowMaker
    on_error: OnError


class Item(NamedTuple):
    """A record and what it comes to at each outlet of its topic, by the outlet's place."""

    record: Record
    made: Sequence[tuple[int, Made]]


class SinkBatch(NamedTuple):
    """Records in order, and the positions behind them."""

    items: Sequence[Item]
    after: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many rows, deletions and events it comes to."""
        return sum(each is not None for item in self.items for _, each in item.made)


@dataclass(slots=True)
class OpenBatch:
    """What is not sealed yet."""

    items: list[Item] = field(default_factory=list)
    bytes: int = 0
    since_s: float = 0.0


def halves(batch: SinkBatch, before: Mapping[str, int]) -> tuple[SinkBatch, SinkBatch]:
    """Two batches that do the same one after the other; `before`: the positions that the first begins at."""
    middle = len(batch.items) // 2
    first = batch.items[:middle]
    after = dict(before)
    after.update({item.record.topic(): item.record.offset() + 1 for item in first})
    return SinkBatch(first, after), SinkBatch(batch.items[middle:], batch.after)


def writes_of(batch: SinkBatch, outlets: Sequence[Outlet]) -> list[tuple[int, RowsWrite | OwnWrite]]:
    """What to write, each with its outlet's place: sink by sink, in the order in which they were declared.

    Where two of them write to one table, the order of the records counts instead.
    """
    tables = [outlet.maker.table for outlet in outlets if outlet.maker.table is not None]
    made = [(at, each) for item in batch.items for at, each in item.made if each is not None]
    if len({*tables}) == len(tables):
        made.sort(key=itemgetter(0))  # which keeps the order of each sink's records
    return [
        (at, write)
        for at, run in groupby(made, itemgetter(0))
        for write in outlets[at].maker.writes([each for _, each in run])
    ]
