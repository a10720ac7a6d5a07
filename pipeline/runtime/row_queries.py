"""Reads committed rows of live tasks, for the HTTP port: `RowQueries`. Any thread may call it.

The position is read before the row, so a row is at least as new as the position that is returned with it. Both are
committed: a task writes to its local state only what is committed in Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.api.declarations import DeclaredTable
from pipeline.api.table import table_prefix
from pipeline.api.timed_rows import TimedRow, Times, timed_rows
from pipeline.core.entry_body import row_prefixes
from pipeline.core.event_time import clock_key, unpack_state
from pipeline.core.inputs import row_prefix
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import decode_position
from pipeline.runtime.assignment.ownership import Ownership
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.task.task import Task

__all__ = ["Elsewhere", "FoundRow", "RowQueries"]


class FoundRow(NamedTuple):
    """The answer for a key; `data` is None if the key has no row.

    `rows`: of a window or a history, what was found at the requested times; None of a table.
    `seq`: the row contains the effects of all entries of the task's journal up to this one, and maybe of later ones.
    `positions`: the next offset of each input at that entry. `age_s`: since the worker last knew that it owned it.
    """

    task: TaskId
    data: bytes | None
    seq: int
    positions: Mapping[TopicPartition, int]
    age_s: float
    rows: Sequence[TimedRow] | None = None


class Elsewhere(NamedTuple):
    """The task is not live here. `worker`: its owner. `address`: the owner's HTTP port. Each is empty if not known."""

    task: TaskId
    worker: str
    address: str


class RowQueries:
    """The rows of a worker's live tasks.

    Args:
        runs: The groups that the worker runs.
        ownership: What the worker knows about owners and other workers.
        monotonic_s: The clock of the tasks.
    """

    def __init__(
        self, runs: Sequence[GroupRun], ownership: Callable[[], Ownership], monotonic_s: Callable[[], float]
    ) -> None:
        self._runs = runs
        self._ownership = ownership
        self._monotonic_s = monotonic_s

    def partitions(self, group: str) -> int | None:
        """The number of partitions of a group; None if this worker does not run it, or has not started."""
        run = self._run(group)
        return run.plan.partitions if run is not None else None

    def find(
        self,
        group: str,
        table: DeclaredTable[Any, Any],
        partition: int,
        key: bytes,
        times: Times | None = None,
    ) -> FoundRow | Elsewhere | None:
        """The row of an encoded key; None if this worker does not run the group. Raises CorruptStateError.

        `times`: of a window or a history, which rows.
        """
        run = self._run(group)
        if run is None:
            return None
        task = run.task_of(partition)
        if isinstance(task, Task):
            begin = row_prefix(partition) if run.plan.identity.tasks else b""
            owned_at_s = task.owned_at_s
            found = _read(task, table, begin, key) if times is None else None
            timed = _read_timed(task, table, begin, key, times) if times is not None else None
            if timed is not None:
                found = timed[0], None
            if found is not None:
                position = decode_position(found[0], f"task {task.id}")
                inputs = run.plan.names_of(task.id.number)
                positions = inputs.places(position.positions)
                age_s = self._monotonic_s() - owned_at_s
                rows = timed[1] if timed is not None else None
                return FoundRow(task.id, found[1], position.seq, positions, age_s, rows)
        wanted = TaskId(run.plan.id.app, group, run.plan.task_of(partition))
        return Elsewhere(wanted, *self._ownership().place_of(wanted))

    def is_live(self, group: str, number: int) -> bool:
        """Whether a task is live here."""
        run = self._run(group)
        return run is not None and number in run.tasks

    def place_of(self, group: str, partition: int) -> Elsewhere | None:
        """The owner of a partition that is not live here; None if it is. `partition`: of a group that runs here."""
        run = self._run(group)
        if run is None or run.task_of(partition) is not None:
            return None
        wanted = TaskId(run.plan.id.app, group, run.plan.task_of(partition))
        return Elsewhere(wanted, *self._ownership().place_of(wanted))

    def local_row(self, group: str, table: DeclaredTable[Any, Any], key: bytes) -> bytes | None:
        """The committed row of an encoded key in any live task here; None if there is none."""
        for task, begin in self._places(group):
            found = _read(task, table, begin, key)
            if found is not None and found[1] is not None:
                return found[1]
        return None

    def local_rows(self, group: str, table: DeclaredTable[Any, Any]) -> Iterator[tuple[bytes, bytes]]:
        """(encoded key, row) of all committed rows of the live tasks here, each as it is when it is read."""
        for task, begin in self._places(group):
            prefix = begin + table_prefix(table.name)
            start = prefix
            while (found := task.store.first_row(prefix, start)) is not None:
                key, data = found
                start = key + b"\0"
                visible = _read(task, table, begin, key[len(prefix) :]) if table.fades else (b"", data)
                if visible is not None and visible[1] is not None:
                    yield key[len(prefix) :], visible[1]

    def _places(self, group: str) -> Iterator[tuple[Task, bytes]]:
        """The live tasks here, with the prefix of the rows of each of their partitions."""
        run = self._run(group)
        for number, task in list(run.tasks.items()) if run is not None else ():
            if run is not None and isinstance(task, Task):
                for begin in row_prefixes(run.plan.identity, number):
                    yield task, begin

    def _run(self, group: str) -> GroupRun | None:
        return next((run for run in list(self._runs) if run.plan.id.group == group), None)


def _read(
    task: Task, table: DeclaredTable[Any, Any], begin: bytes, key: bytes
) -> tuple[bytes, bytes | None] | None:
    """The position, and the encoded value of a row that is at least as new; None if the state was closed.

    With a time-to-live, the clock is read before the row. So the clock is never newer than the row: a row that is
    written again meanwhile is not taken for one that has expired.
    """
    full_key = begin + table_prefix(table.name) + key
    if not table.fades:
        found = task.store.row(full_key)
        return None if found is None or found[0] is None else (found[0], found[1])
    clock, row = task.store.row(clock_key(begin)), task.store.row(full_key)
    if clock is None or row is None or clock[0] is None:
        return None
    if row[1] is None:
        return clock[0], None
    return clock[0], table.visible(row[1], unpack_state(clock[1], f"task {task.id}"))


class _Rows:
    """Reads of a task's state, on a thread of the HTTP port."""

    def __init__(self, task: Task) -> None:
        self._store = task.store

    def get(self, key: bytes) -> bytes | None:
        found = self._store.row(key)
        return found[1] if found is not None else None

    def first(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        return self._store.first_row(prefix, start)


def _read_timed(
    task: Task, definition: DeclaredTable[Any, Any], begin: bytes, key: bytes, times: Times
) -> tuple[bytes, Sequence[TimedRow]] | None:
    """The position, and the rows of a window or a history at exactly this position; None if the state was closed.

    Several rows are read. They belong together if no commit was applied meanwhile: the position is still the same.
    Otherwise they are read again. A commit takes milliseconds and these reads microseconds, so this ends soon.
    """
    while True:
        before = task.store.row(clock_key(begin))
        if before is None or before[0] is None:
            return None
        clock = unpack_state(before[1], f"task {task.id}")
        found = timed_rows(definition, begin, key, times, clock, _Rows(task))
        after = task.store.row(clock_key(begin))
        if after is None:
            return None
        if after[0] == before[0]:
            return before[0], found
