"""Reads of tables outside of agents: `CommittedRows`, the committed rows of the tasks that are live in this worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.api.declarations import DeclaredTable
from pipeline.faust.current import CURRENT
from pipeline.faust.outputs import outside
from pipeline.runtime.row_queries import RowQueries

__all__ = ["CommittedRows"]


class CommittedRows:
    """`queries`: those of the worker, while it runs. Any thread may read."""

    def __init__(self) -> None:
        self.queries: RowQueries | None = None

    def row(self, table: DeclaredTable[Any, Any], key: bytes) -> bytes | None:
        """The row of an encoded key; None if no live task here has it. Raises ConfigError without a worker."""
        return self._queries(table).local_row(table.group, table, key)

    def rows(self, table: DeclaredTable[Any, Any]) -> Iterator[tuple[bytes, bytes]]:
        """The encoded keys and rows of all live tasks here. Raises ConfigError without a worker."""
        return self._queries(table).local_rows(table.group, table)

    def _queries(self, table: DeclaredTable[Any, Any]) -> RowQueries:
        # An agent before its first event has a task, whose uncommitted rows are not seen here.
        if self.queries is None or CURRENT.get() is not None:
            raise outside(f"table {table.name} is used")
        return self.queries
