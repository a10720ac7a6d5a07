"""Compares the outputs and tables of the sums app with the expected ones at each input position.

An input has one output, in the partition of the same number. So at position p of a partition, its outputs are those of
its first p inputs, in their order, and its rows are the fold over these inputs. Outputs must match the positions at the
journal's end, and a table must match the positions in its own store: for all partitions of a task. A worker may run or
not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.api.table import table_prefix
from pipeline.config import KafkaSettings
from pipeline.core.entry_body import row_prefixes
from pipeline.core.journal_format import EntryKind, JournalEntry, assemble
from pipeline.core.names import TaskId, TopicPartition
from pipeline.core.position import AppliedPosition, decode_position
from pipeline.core.records import partition_of
from pipeline.errors import RetriableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.rocksdb.rocks import RocksStores

__all__ = ["Reference"]

DEADLINE_S = 60.0
# The maximum time until the markers of a decided transaction are in all of its partitions.
MARKERS_S = 30.0
TABLES = {"main": "totals", "counting": "counts"}


@dataclass(frozen=True, slots=True)
class _State:
    """A task's state on disk: its position, and its decoded table."""

    applied: AppliedPosition
    table: dict[str, object]


class Reference:
    """The inputs of one app by partition, and the comparison."""

    def __init__(self, servers: str, prefix: str, groups: Sequence[str], partitions: int, tasks: int) -> None:
        self._servers = servers
        self._prefix = prefix
        self._inputs: list[list[tuple[str, int]]] = [[] for _ in range(partitions)]
        self._tasks = [TaskId(prefix, group, number) for group in groups for number in range(tasks)]
        self._count = tasks
        self._acquired: dict[TaskId, int] = {}

    def sent(self, key: str, number: int) -> None:
        """Record one input."""
        self._inputs[partition_of(key.encode(), len(self._inputs))].append((key, number))

    def table(self, state_dir: Path, group: str) -> dict[str, object]:
        """The applied rows of a group's tasks, by key."""
        found: dict[str, object] = {}
        for task in self._tasks:
            state = _state(state_dir, task) if task.group == group else None
            if state is not None:
                assert not found.keys() & state.table.keys(), f"{task} has keys of another task"
                found |= state.table
        return found

    def check_at_rest(self, state_dir: Path) -> dict[TaskId, int]:
        """After a crash, without a worker, check that outputs and tables are those of the inputs up to a position.

        Returns the number of inputs below the positions at the journals' ends.
        """
        with _Log.opened(self._servers) as log:
            self._check(log, state_dir)
            journals = {task: log.entries(task) for task in self._tasks}
        self._acquired = {task: _last_acquire(entries) for task, entries in journals.items()}
        return {task: sum(self._end(task, entries).values()) for task, entries in journals.items()}

    def check_caught_up(self, state_dir: Path, alive: Callable[[], bool]) -> None:
        """Wait until a running worker is live and has committed and applied every input, then check that all is exact.

        The worker must have acquired its tasks after the last `check_at_rest`.
        """
        deadline = time.monotonic() + DEADLINE_S
        with _Log.opened(self._servers) as log:
            waiting = list(self._tasks)
            while waiting:
                assert alive(), "the worker ended"
                assert time.monotonic() < deadline, f"{', '.join(map(str, waiting))} did not catch up"
                if self._caught_up(log, waiting[0], state_dir):
                    waiting.pop(0)
            self._check(log, state_dir)

    def _caught_up(self, log: _Log, task: TaskId, state_dir: Path) -> bool:
        entries = log.entries(task)
        if _last_acquire(entries) <= self._acquired.get(task, 0):
            return False
        if any(at != len(self._inputs[number]) for number, at in self._end(task, entries).items()):
            return False
        state = _state(state_dir, task)
        return state is not None and state.applied.seq == entries[-1].entry.seq

    def _check(self, log: _Log, state_dir: Path) -> None:
        begun: dict[str, set[bool]] = defaultdict(set)
        for task in self._tasks:
            entries = log.entries(task)
            begun[task.group].add(bool(entries))
            # Only complete entries that a checkpoint contains may be truncated.
            assert not entries or (entries[0].entry.kind is EntryKind.GENESIS) == (entries[0].entry.seq == 1)
            if task.group == "main":
                self._check_outputs(log, task)
            self._check_state(log, task, state_dir)
        assert all(len(some) == 1 for some in begun.values()), f"genesis of a part of the tasks: {begun}"

    def _check_outputs(self, log: _Log, task: TaskId) -> None:
        """Check that outputs match the journal's end, once all markers of the last decided transaction are written."""
        deadline = time.monotonic() + MARKERS_S
        while True:
            ends = self._end(task, log.entries(task))
            wanted = {number: _sums(self._inputs[number][:end]) for number, end in ends.items()}
            found = {number: self._outputs(log, number) for number in ends}
            if found == wanted or time.monotonic() > deadline:
                break
        assert found == wanted, f"outputs of {task} at positions {ends}"

    def _outputs(self, log: _Log, number: int) -> list[tuple[int, int]]:
        read = log.committed(TopicPartition(f"{self._prefix}-sums", number))
        return [(row["count"], row["total"]) for row in (msgspec.json.decode(value) for _, value in read)]

    def _check_state(self, log: _Log, task: TaskId, state_dir: Path) -> None:
        """Check that the table is the fold up to its own positions, which are not after the journal's end."""
        state = _state(state_dir, task)
        if state is None:
            return
        deadline = time.monotonic() + MARKERS_S
        while (last := [entry.entry.seq for entry in log.entries(task)][-1:]) < [state.applied.seq]:
            assert time.monotonic() < deadline, f"{task} has applied {state.applied.seq} of {last}"
        folded: dict[str, object] = {}
        positions = self._positions(task, state.applied.positions)
        for number, position in positions.items():
            inputs = self._inputs[number][:position]
            for (key, _), (count, total) in zip(inputs, _sums(inputs), strict=True):
                folded[key] = {"count": count, "total": total} if task.group == "main" else count
        assert state.table == folded, f"the table of {task} at positions {positions}"

    def _end(self, task: TaskId, entries: list[JournalEntry]) -> dict[int, int]:
        return self._positions(task, entries[-1].entry.positions if entries else {})

    def _positions(self, task: TaskId, positions: dict[str, int]) -> dict[int, int]:
        """The position of each partition of the task; 0 if it has none yet."""
        topic = f"{self._prefix}-amounts"
        numbers = range(task.number, len(self._inputs), self._count)
        return {
            number: positions.get(f"{topic}/{ordinal}" if ordinal else topic, 0)
            for ordinal, number in enumerate(numbers)
        }


class _Log:
    """The current contents of Kafka: verified journals and outputs, up to their stable ends."""

    def __init__(self, cluster: KafkaCluster, reader: KafkaJournalReader) -> None:
        self._cluster = cluster
        self._reader = reader
        self._read: dict[TopicPartition, tuple[int, list[tuple[int, bytes]]]] = {}

    @classmethod
    @contextmanager
    def opened(cls, servers: str) -> Iterator[_Log]:
        """Open new clients each time, because a test may have restarted the broker."""
        settings = KafkaSettings(servers)
        with closing(KafkaCluster(settings)) as cluster, closing(KafkaJournalReader(settings)) as reader:
            yield cls(cluster, reader)

    def entries(self, task: TaskId) -> list[JournalEntry]:
        """A task's journal; empty if it does not exist yet."""
        journal = task.journal
        if journal not in self._read and journal.topic not in self._cluster.describe([journal.topic]):
            return []
        return list(assemble(self.committed(journal), str(journal)))

    def committed(self, partition: TopicPartition) -> list[tuple[int, bytes]]:
        """(offset, value) of all committed records, including those of earlier reads."""
        while True:
            bounds = self._reader.bounds(partition)
            begin, known = self._read.get(partition, (bounds.start, []))
            try:
                found = list(self._reader.read(partition, begin, bounds.stable_end))
            except RetriableError:  # a worker has truncated its journal since
                self._read.pop(partition, None)
                continue
            self._read[partition] = (bounds.stable_end, known + found)
            return known + found


def _last_acquire(entries: list[JournalEntry]) -> int:
    """The seq of the last acquire entry; if it was truncated, that of the first entry."""
    first = entries[0].entry.seq if entries else 0
    return max((e.entry.seq for e in entries if e.entry.kind is EntryKind.ACQUIRE), default=first)


def _sums(inputs: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """The expected output of each input: the number of inputs of its key, and their sum."""
    sums: dict[str, tuple[int, int]] = {}
    found = []
    for key, number in inputs:
        count, total = sums.get(key, (0, 0))
        sums[key] = (count + 1, total + number)
        found.append(sums[key])
    return found


def _state(state_dir: Path, task: TaskId) -> _State | None:
    stores = RocksStores(state_dir, 1 << 20)
    if not stores.exists(task):
        return None
    store = stores.open_read_only(task)
    try:
        data = store.position()
        if data is None:
            return None
        applied = decode_position(data, str(task))
        rows = {
            key[len(prefix) :].decode(): msgspec.json.decode(value)
            for partition in row_prefixes(applied.identity, task.number)
            for prefix in (partition + table_prefix(TABLES[task.group]),)
            for key, value in store.scan(prefix)
        }
        return _State(applied, rows)
    finally:
        store.close()
