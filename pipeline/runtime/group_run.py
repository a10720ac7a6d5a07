"""A group in a worker: its source and its live tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import methodcaller

from pipeline.core.names import TopicPartition
from pipeline.ports import Record, Source
from pipeline.runtime.live_task import LiveTask, TaskBackend
from pipeline.runtime.plan import GroupPlan

__all__ = ["GroupRun"]


class GroupRun:
    """Keeps the source's assignment equal to the live tasks. Processing thread only."""

    def __init__(self, plan: GroupPlan, source: Source, backend: TaskBackend) -> None:
        self.plan = plan
        self.backend = backend
        self.source = source
        self.tasks: dict[int, LiveTask] = {}
        self.leaving: dict[int, LiveTask] = {}  # being released; their open work is being committed
        self._paused: set[int] = set()
        self._held: set[int] = set()
        self._left: dict[TopicPartition, int] = {}  # positions of released tasks that are not mirrored yet

    def add(self, task: LiveTask) -> None:
        """Add a live task, and read its partitions from its positions."""
        partitions = self.plan.partitions_of(task.id.number)
        self.tasks[task.id.number] = task
        self.source.assign({tp: task.applied.positions[tp.topic] for tp in partitions})

    def release(self, partition: int) -> None:
        """Start to release a live task: no more records are read for it."""
        task = self._stop_reading(partition)
        if task is not None:
            self.leaving[partition] = task
            task.leave()

    def remove(self, partition: int) -> LiveTask | None:
        """Remove a live or leaving task without closing it; None if there is no such task."""
        left = self.leaving.pop(partition, None)
        if left is not None and left.idle:
            self._left.update(self.applied(left))
        return left or self._stop_reading(partition)

    def _stop_reading(self, partition: int) -> LiveTask | None:
        task = self.tasks.pop(partition, None)
        if task is not None:
            self.source.unassign(self.plan.partitions_of(partition))
            self._paused.discard(partition)
            self._held.discard(partition)
        return task

    def batches(self, records: Sequence[Record]) -> Iterator[tuple[int, list[Record]]]:
        """(partition, records of one topic) in order. Runs are long, because records arrive as they were fetched."""
        if len(self.plan.identity.inputs) == 1:
            for partition, run in groupby(records, key=_partition):
                yield partition, list(run)
        else:
            for (_, partition), run in groupby(records, key=_place):
                yield partition, list(run)

    def hold(self, partition: int) -> None:
        """Stop reading for a live task until `unhold`."""
        self._held.add(partition)

    def is_held(self, partition: int) -> bool:
        return partition in self._held

    def is_paused(self, partition: int) -> bool:
        """Whether the input of a live task is paused: it is held, or too many records wait."""
        return partition in self._paused

    def unhold(self, partition: int) -> None:
        self._held.discard(partition)

    def balance(self, limit: int) -> None:
        """Pause the partitions of tasks that are held or have more than `limit` waiting records.

        Resume those of tasks that are not held and have none.
        """
        for partition, task in self.tasks.items():
            held = partition in self._held
            if partition not in self._paused and (held or task.backlog_records > limit):
                self._paused.add(partition)
                self.source.pause(self.plan.partitions_of(partition))
            elif partition in self._paused and task.backlog_records == 0 and not held:
                self._paused.discard(partition)
                self.source.resume(self.plan.partitions_of(partition))

    def mirror(self) -> None:
        """Commit the applied positions to the consumer group, for lag tools."""
        positions, self._left = self._left, {}
        for task in self.tasks.values():
            positions.update(self.applied(task))
        if positions:
            self.source.mirror(positions)

    def applied(self, task: LiveTask) -> dict[TopicPartition, int]:
        """The positions of a task in its inputs."""
        partitions = self.plan.partitions_of(task.id.number)
        return {tp: task.applied.positions[tp.topic] for tp in partitions}


# A C function, since it is called for every record.
_partition: Callable[[Record], int] = methodcaller("partition")


def _place(record: Record) -> tuple[str, int]:
    return record.topic(), record.partition()
