"""The SQL of a sink, common to all databases except for parameter marks and locks: `SqlSession`.

The module of each database implements how statements run, and translates errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pipeline.core.names import GroupId, TaskId
from pipeline.core.row_sets import Gone, TableFacts
from pipeline.core.sink_positions import Hold, PositionRow
from pipeline.errors import InvariantError, PipelineError, RejectedRowsError
from pipeline.ports.databases import OwnWrite, RowsWrite

__all__ = ["POSITIONS", "POSITIONS_DDL", "SqlSession", "quoted"]

POSITIONS = "pipeline_positions"
POSITIONS_DDL = f"""CREATE TABLE {POSITIONS} (
  app text NOT NULL,
  group_name text NOT NULL,
  topic text NOT NULL,
  partition_no integer NOT NULL,
  next_offset bigint NOT NULL,
  epoch bigint NOT NULL,
  owner text NOT NULL,
  process text NOT NULL,
  topic_id text NOT NULL,
  cluster_id text NOT NULL,
  partitions integer NOT NULL,
  PRIMARY KEY (app, group_name, topic, partition_no)
)"""
_COLUMNS = "topic, partition_no, next_offset, epoch, owner, process, topic_id, cluster_id, partitions"
_OTHERS = ("next_offset", "epoch", "owner", "process", "topic_id", "cluster_id", "partitions")


def quoted(name: str) -> str:
    """The quoted name of a table. A dot separates schema and table."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


class SqlSession(ABC):
    """`ports.SinkSession`, based on a few abstract methods. `MARK`: the placeholder of a parameter.

    `SAME_SESSION` and its parameters `same_session`: an additional condition of the fence.
    """

    MARK = "?"
    MODULO = "%"
    ORDER = "topic, partition_no"  # as Python sorts PositionRow
    LOCK = ""
    SAME_SESSION = ""
    same_session: tuple[Any, ...] = ()

    @property
    @abstractmethod
    def positions(self) -> str:
        """The name of the table of positions, with its schema."""

    @property
    def _positions(self) -> str:
        return self.named(self.positions)

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of changed rows."""

    @abstractmethod
    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement for each row, in order, and return the number of changed rows."""

    @abstractmethod
    def own_write(self, write: OwnWrite) -> None:
        """Call the user's function with a cursor. Ensures that the function cannot end the transaction unnoticed."""

    def rows(self, group: GroupId) -> list[PositionRow]:
        where = f"WHERE app = {self.MARK} AND group_name = {self.MARK}"
        return [
            PositionRow(*row)
            for row in self.query(f"SELECT {_COLUMNS} FROM {self._positions} {where}", group)
        ]

    def lock(self, task: TaskId, tasks: int) -> list[PositionRow]:
        m = self.MARK
        found = self.query(
            f"SELECT {_COLUMNS} FROM {self._positions} WHERE app = {m} AND group_name = {m} "
            f"AND partition_no {self.MODULO} {m} = {m} ORDER BY {self.ORDER}{self.LOCK}",
            (*task.group_id, tasks, task.number),
        )
        return [PositionRow(*row) for row in found]

    def put(self, group: GroupId, rows: Sequence[PositionRow], *, keep: bool) -> None:
        m = self.MARK
        does = (
            "NOTHING" if keep else "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _OTHERS)
        )
        # Sorted, so that two concurrent first starts cannot deadlock.
        self._execute_each(
            f"INSERT INTO {self._positions} (app, group_name, {_COLUMNS}) VALUES ({', '.join([m] * 11)}) "
            f"ON CONFLICT (app, group_name, topic, partition_no) DO {does}",
            [(*group, *row) for row in sorted(rows)],
        )

    def move(self, hold: Hold, after: Mapping[str, int]) -> bool:
        m, task = self.MARK, hold.task
        sql = (
            f"UPDATE {self._positions} SET next_offset = {m} WHERE app = {m} AND group_name = {m} AND topic = {m} "
            f"AND partition_no = {m} AND epoch = {m} AND process = {m} AND next_offset = {m}{self.SAME_SESSION}"
        )
        moves = [
            (to, *task.group_id, *place, hold.seq, hold.process, position, *self.same_session)
            for place, position, to in hold.moves(after)
        ]
        return self._execute_each(sql, moves) == len(moves)  # each matches at most one row

    def _execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Like `execute_many`. One row, the usual case, is not worth a batch of statements."""
        return self.execute(sql, rows[0]) if len(rows) == 1 else self.execute_many(sql, rows)

    def write(self, writes: Sequence[RowsWrite | OwnWrite]) -> None:
        for at, write in enumerate(writes):
            try:
                if isinstance(write, OwnWrite):
                    self.own_write(write)
                else:
                    self.write_rows(write)
            except RejectedRowsError as error:
                raise RejectedRowsError(error.message, hint=error.hint, write=at) from error
            except (PipelineError, InvariantError):
                raise
            except Exception as error:  # a value that the client cannot convert
                raise RejectedRowsError(f"{type(error).__name__}: {error}", write=at) from error

    def ddl(self, table: str, key: Sequence[str]) -> str:
        return f"ALTER TABLE {quoted(table)} ADD PRIMARY KEY ({', '.join(map(quoted_column, key))})"

    def elsewhere(self, _group: GroupId, _cluster_id: str) -> list[str]:
        return []

    def facts(self, _name: str, _key: Sequence[str]) -> TableFacts | None:
        return None

    def insert(self, write: RowsWrite) -> str:
        """The statement that writes a row."""
        marks = ", ".join([self.MARK] * len(write.columns))
        return (
            f"INSERT INTO {self.named(write.target.table)} ({self.listed(write.columns)}) VALUES ({marks})"
            f"{self.on_conflict(write)}"
        )

    def delete(self, write: RowsWrite) -> str:
        """The statement that deletes a row."""
        where = " AND ".join(
            f"{self.named_column(name)} = {self.compared(write, name)}" for name in write.target.key
        )
        return f"DELETE FROM {self.named(write.target.table)} WHERE {where}"

    def compared(self, _write: RowsWrite, _column: str) -> str:
        """The placeholder for a value that is compared with a key column, with the same conversion as in a row."""
        return self.MARK

    def on_conflict(self, write: RowsWrite) -> str:
        """The ON CONFLICT clause of an INSERT."""
        target = write.target
        if target.mode == "append":
            return ""
        if target.mode == "insert":
            return (
                f" ON CONFLICT ({self.listed(target.key)}) DO NOTHING"
                if target.key
                else " ON CONFLICT DO NOTHING"
            )
        others = [self.named_column(name) for name in write.columns if name not in target.key]
        if not others:
            return f" ON CONFLICT ({self.listed(target.key)}) DO NOTHING"
        sets = ", ".join(f"{name} = excluded.{name}" for name in others)
        return f" ON CONFLICT ({self.listed(target.key)}) DO UPDATE SET {sets}"

    def listed(self, columns: Sequence[str]) -> str:
        return ", ".join(map(self.named_column, columns))

    def named(self, name: str) -> str:
        """The name of a table, from `TableShape.name`, for a statement with parameters."""
        return name

    def named_column(self, column: str) -> str:
        return quoted_column(column)

    def write_rows(self, write: RowsWrite) -> None:
        """Write the changes in their order, so that the database itself compares the keys."""
        for gone, run in groupby(write.changes, lambda change: isinstance(change, Gone)):
            if gone:
                self.execute_many(self.delete(write), [c.key for c in run if isinstance(c, Gone)])
            else:
                self.execute_many(self.insert(write), [c for c in run if not isinstance(c, Gone)])


def quoted_column(name: str) -> str:
    """The quoted name of a column. A dot is a part of the name."""
    return '"' + name.replace('"', '""') + '"'
