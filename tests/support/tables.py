"""A table over an in-memory store, and what the runtime does to it: `Rig`."""

from __future__ import annotations

from typing import Any

from pipeline import App
from pipeline.api.declarations import Table, declared_table
from pipeline.api.table import RuntimeTable, TaskOverlay
from pipeline.core.names import TaskId
from pipeline.runtime.task.cache import CacheBudget
from pipeline.testing.memory_store import MemoryStore, MemoryStores

__all__ = ["TASK", "Rig", "table_def"]

TASK = TaskId("app", "main", 0)


class Rig:
    """A table over a store, with what the runtime does to it between records and commits."""

    def __init__(self, definition: Table[Any, Any], *others: Table[Any, Any]) -> None:
        self.store: MemoryStore = MemoryStores().open(TASK)
        self.overlay = TaskOverlay()
        self.table: RuntimeTable[Any, Any] = RuntimeTable(
            declared_table(definition), self.store, self.overlay
        )
        self.tables = [
            self.table,
            *(RuntimeTable(declared_table(other), self.store, self.overlay) for other in others),
        ]

    def keep_record(self) -> None:
        """The handler returned."""
        self.overlay.undo.clear()

    def undo_record(self) -> None:
        """The handler raised."""
        self.overlay.take_back()

    def seal(self) -> None:
        delta: dict[bytes, bytes | None] = {}
        for table in self.tables:
            delta.update(table.take_writes())
        self.overlay.sealed = delta

    def apply(self) -> None:
        self.store.apply(self.overlay.sealed, b"position")

    def retire(self, cache_bytes: int = 1_000_000) -> None:
        self.overlay.sealed = {}
        CacheBudget(cache_bytes).committed(self.tables)

    def commit(self, cache_bytes: int = 1_000_000) -> None:
        self.keep_record()
        self.seal()
        self.apply()
        self.retire(cache_bytes)


def table_def(key: Any = str, value: Any = int, name: str = "totals") -> Table[Any, Any]:
    return App("app").table(name, key=key, value=value)
