"""Reads the rows of a batch's keys in one call, before the handlers read them one by one: `Prefetch`.

RocksDB reads many rows at once in less time than one by one. Most handlers read the row of their record's key. That a
handler does so is learnt from the reads of the batch before. So a state that fits into the cache, and a handler that
reads other keys, cost nothing.

A prefetched row is a row that was read: it is looked for in the sealed overlay first, and it is in the cache with its
decoded value. So a handler sees the same values with and without it. Processing thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.api.declarations import DeclaredTopic
from pipeline.api.encode_errors import REFUSALS
from pipeline.api.table import RuntimeTable
from pipeline.ports import Record

__all__ = ["Prefetch"]

LEAST_RECORDS = 16  # of a batch; a smaller one gains nothing
LEAST_SHARE = 0.1  # of the records of a batch: so many rows must have been read from the store
PAUSE_BATCHES = 64  # after a batch whose handlers read other keys


@dataclass(slots=True)
class _Reads:
    """The reads of one table.

    `seen`: the table's reads of single rows, before the last batch. `records`: of the last batch. `before`: single
    reads for each record, before rows were prefetched; 0 if they were not. `loaded`: rows prefetched for it.
    """

    table: RuntimeTable[Any, Any]
    seen: int = 0
    records: int = 0
    before: float = 0.0
    loaded: int = 0
    pause: int = 0

    def begin(self, records: int) -> bool:
        """Begin a batch. Returns whether to read its rows ahead."""
        single = (self.table.store_reads - self.seen) / self.records if self.records else 0.0
        loaded = self.loaded / self.records if self.records else 0.0
        self.seen, self.records, self.loaded = self.table.store_reads, records, 0
        if self.pause:
            self.pause -= 1
            return False
        if self.before and single > self.before / 2:
            self.before, self.pause = 0.0, PAUSE_BATCHES
        elif self.before:
            if single + loaded < LEAST_SHARE:
                self.before = 0.0
        elif single >= LEAST_SHARE:
            self.before = single
        return self.before > 0.0


class Prefetch:
    """Of the records of one topic, in one task. `tables`: those of the task."""

    def __init__(self, topic: DeclaredTopic[Any, Any], tables: Iterable[RuntimeTable[Any, Any]]) -> None:
        self._decode_key: Callable[[bytes | None], Any] = topic.key.decode
        self._tables = [_Reads(table) for table in tables if table.definition.key.schema == topic.key.schema]

    def load(self, records: Sequence[Record]) -> None:
        """Read the rows of the records' keys, if that pays. Raises CorruptStateError."""
        if len(records) < LEAST_RECORDS:
            return
        due = [reads for reads in self._tables if reads.begin(len(records))]
        if due:
            keys = self._keys(records)
            for reads in due:
                reads.loaded = reads.table.load(keys)

    def _keys(self, records: Sequence[Record]) -> dict[Any, None]:
        """The keys of the records, without those that cannot be decoded: their records fail in their turn."""
        decode_key = self._decode_key
        keys: dict[Any, None] = {}
        for record in records:
            try:
                keys[decode_key(record.key())] = None
            except REFUSALS:
                continue
        keys.pop(None, None)
        return keys
