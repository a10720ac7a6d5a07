"""Batches of a sink task: records, their changes, and the writes of a batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from pipeline.api.bindings import OnError
from pipeline.api.declarations import DeclaredTopic
from pipeline.ports import Record
from pipeline.ports.databases import OwnWrite, RowsWrite
from pipeline.runtime.sinks.rows import Made, RowMaker

__all__ = ["Item", "OpenBatch", "Outlet", "SinkBatch", "halves", "writes_of"]


class Outlet(NamedTuple):
    """One `group.sink(...)` of a running group."""

    topic: DeclaredTopic[Any, Any]
    maker: RowMaker
    on_error: OnError


class Item(NamedTuple):
    """A record and its change at each outlet of its topic, by the outlet's index."""

    record: Record
    made: Sequence[tuple[int, Made]]


class SinkBatch(NamedTuple):
    """Records in order, and the positions after them."""

    items: Sequence[Item]
    after: Mapping[str, int]

    @property
    def rows(self) -> int:
        """The number of its rows, deletions and events."""
        return sum(each is not None for item in self.items for _, each in item.made)


@dataclass(slots=True)
class OpenBatch:
    """The batch that is not sealed yet."""

    items: list[Item] = field(default_factory=list)
    bytes: int = 0
    since_s: float = 0.0


def halves(batch: SinkBatch, before: Mapping[str, int]) -> tuple[SinkBatch, SinkBatch]:
    """Two batches that together equal this one. `before`: the positions at the start of the first."""
    middle = len(batch.items) // 2
    first = batch.items[:middle]
    after = dict(before)
    after.update({item.record.topic(): item.record.offset() + 1 for item in first})
    return SinkBatch(first, after), SinkBatch(batch.items[middle:], batch.after)


def writes_of(batch: SinkBatch, outlets: Sequence[Outlet]) -> list[tuple[int, RowsWrite | OwnWrite]]:
    """The writes, each with its outlet's index: sink by sink, in the order of their declaration.

    If two sinks write to one table, the order of the records is kept instead.
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
