"""What remains of a table with a time-to-live when all its rows are over, and what writing and deleting them costs.

No Kafka: the table of a task over a state on disk, which is written in commits. Each key is written once. Then the
clock passes all of them, the due steps delete them, and the state is compacted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from pipeline import App
from pipeline.api.due_index import DueIndex
from pipeline.api.expiring_rows import RuntimeExpiringTable
from pipeline.api.indexed_rows import RowPlace
from pipeline.api.table import TaskOverlay
from pipeline.core.event_time import ClockState, EventClock
from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.task.cache import CacheBudget

__all__ = ["KEYS", "Figures", "measure", "run"]

KEYS = 1_000_000
TTL_S = 3600
COMMIT_ROWS = 10_000
_TURN = 5_000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Figures:
    """`rows`: those of the table and of the index. `most_bytes`, `bytes`: of table files, before and after."""

    written: int
    rows: int
    most_bytes: int
    bytes: int
    write_us: float
    delete_us: float


class _State:
    """A table over a state on disk, and what the runtime does to it."""

    def __init__(self, directory: Path) -> None:
        table: Any = App("bench").table("rows", key=str, value=int, ttl_s=TTL_S)
        self.store = RocksStores(directory, 64 * _MIB).open(TaskId("bench", "main", 0))
        self.overlay = TaskOverlay()
        self.clock = EventClock(["events"], ClockState())
        self._index = DueIndex(self.store, self.overlay)
        place = RowPlace(self.store, self.overlay, self._index, self.clock, 0, b"")
        self.table: RuntimeExpiringTable[str, int] = RuntimeExpiringTable(
            table, place, SimpleNamespace(event_ms=None), -1
        )
        self._cache = CacheBudget(64 * _MIB)

    def commit(self) -> None:
        writes: Mapping[bytes, bytes | None] = {**self.table.take_writes(), **self._index.take_writes()}
        self.store.apply(writes, b"position")
        self._cache.committed([self.table])

    def delete(self) -> None:
        """Fire all due steps, in turns."""
        while self.table.next_ms <= self.clock.ms:
            turn = count()
            for _ in self.table.due(lambda turn=turn: next(turn) < _TURN):  # type: ignore[misc]
                self.overlay.undo.clear()
            self.commit()

    def rows(self) -> int:
        return sum(1 for _ in self.store.scan(b""))

    def compact(self) -> int:
        """The bytes of the table files after a compaction."""
        database = self.store._database  # noqa: SLF001 - the store has no compaction: RocksDB compacts by itself
        database.flush()
        database.compact_range(None, None)
        return int(self.store.figure("rocksdb.total-sst-files-size") or 0)


def measure(keys: int, directory: Path) -> Figures:
    """Write and delete this many rows in a state in `directory`."""
    state = _State(directory)
    with closing(state.store):
        began = time.process_time()
        for number in range(keys):
            state.clock.ms = 1_000_000 + number
            state.table[f"key-{number * 7919 % keys:09}"] = number
            state.overlay.undo.clear()
            if number % COMMIT_ROWS == COMMIT_ROWS - 1:
                state.commit()
        state.commit()
        wrote = time.process_time()
        written, most = state.rows(), state.compact()
        state.clock.ms += TTL_S * 1000
        deleting = time.process_time()
        state.delete()
        deleted = time.process_time()
        return Figures(
            written,
            state.rows(),
            most,
            state.compact(),
            (wrote - began) / keys * 1e6,
            (deleted - deleting) / keys * 1e6,
        )


def run(keys: int) -> int:
    """Measure and print; 1 when anything is left."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as directory:
        found = measure(keys, Path(directory))
    console.print(
        f"{keys:,} rows: {found.written:,} with their index entries, {found.most_bytes / _MIB:,.1f} MiB; when all are "
        f"over: {found.rows:,} rows, {found.bytes / _MIB:,.1f} MiB. CPU for a row, with the work of RocksDB: "
        f"{found.write_us:.1f} µs to write it, {found.delete_us:.1f} µs to delete it"
    )
    return 0 if found.rows == 0 and found.bytes <= _MIB else 1
