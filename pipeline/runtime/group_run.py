"""A group in a worker: its source and its live tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import methodcaller

from pipeline.config import WorkerSettings
from pipeline.core.names import TopicPartition
from pipeline.ports import Record, Source
from pipeline.runtime.live_task import LiveTask, TaskBackend
from pipeline.runtime.plan import GroupPlan
from pipeline.runtime.poll_size import PollSize

__all__ = ["GroupRun"]


class GroupRun:
    """Keeps the source's assignment equal to the live tasks. Processing thread only."""

    def __init__(
        self, plan: GroupPlan, source: Source, backend: TaskBackend, settings: WorkerSettings
    ) -> None:
        self.plan = plan
        self.poll_size = PollSize(plan.group.bindings, settings)
        self.backend = backend
        self.source = source
        self.tasks: dict[int, LiveTask] = {}
        self.leaving: dict[int, LiveTask] = {}  # being released; their open work is being committed
        self._places = [plan.inputs_of(number) for number in range(plan.task_count)]
        self._names = {place: name for inputs in self._places for name, place in inputs.items()}
        self._by_number: dict[int, list[TopicPartition]] = {}
        for place in self._names:
            self._by_number.setdefault(place.partition, []).append(place)
        self._paused: dict[int, set[int]] = {}  # by task: its paused partition numbers
        self._held: set[int] = set()  # tasks
        self._left: dict[TopicPartition, int] = {}  # positions of released tasks that are not mirrored yet

    def add(self, task: LiveTask) -> None:
        """Add a live task, and read its partitions from its positions."""
        self.tasks[task.id.number] = task
        self.source.assign(self.applied(task))

    def release(self, number: int) -> None:
        """Start to release a live task: no more records are read for it."""
        task = self._stop_reading(number)
        if task is not None:
            self.leaving[number] = task
            task.leave()

    def remove(self, number: int) -> LiveTask | None:
        """Remove a live or leaving task without closing it; None if there is no such task."""
        left = self.leaving.pop(number, None)
        if left is not None and left.idle:
            self._left.update(self.applied(left))
        return left or self._stop_reading(number)

    def _stop_reading(self, number: int) -> LiveTask | None:
        task = self.tasks.pop(number, None)
        if task is not None:
            self.source.unassign(self._places[number].values())
            self._paused.pop(number, None)
            self._held.discard(number)
        return task

    def task_of(self, partition: int) -> LiveTask | None:
        """The live task that reads a partition."""
        return self.tasks.get(partition % len(self._places))

    def name_of(self, record: Record) -> str:
        """The name of the input that a record is from."""
        return self._names[record.topic(), record.partition()]  # type: ignore[index]  # equal to a TopicPartition

    def batches(self, records: Sequence[Record]) -> Iterator[tuple[int, list[Record]]]:
        """(partition, records of one topic) in order. Runs are long, because records arrive as they were fetched."""
        if len(self.plan.identity.inputs) == 1:
            for partition, run in groupby(records, key=_partition):
                yield partition, list(run)
        else:
            for (_, partition), run in groupby(records, key=_place):
                yield partition, list(run)

    def hold(self, number: int) -> None:
        """Stop reading for a live task until `unhold`."""
        self._held.add(number)

    def is_held(self, number: int) -> bool:
        return number in self._held

    def is_paused(self, number: int) -> bool:
        """Whether an input of a live task is paused: the task is held, or too many records of the input wait."""
        return number in self._paused

    def unhold(self, number: int) -> None:
        self._held.discard(number)

    def balance(self) -> None:
        """Pause the partitions of tasks that are held, those that are stopped, and those with too many waiting records.

        A partition is resumed once none of its records wait.
        """
        limit = 2 * self.poll_size.largest
        for number, task in self.tasks.items():
            waiting, paused = task.waiting, self._paused.get(number)
            if not (paused or waiting or task.stopped or number in self._held):
                continue
            if number in self._held:
                wanted = {place.partition for place in self._places[number].values()}
            else:
                wanted = {partition for partition, records in waiting.items() if records > limit}
                wanted.update(task.stopped)
                wanted.update(paused.intersection(waiting) if paused else ())
            self._pause(number, paused or set(), wanted)

    def _pause(self, number: int, before: set[int], now: set[int]) -> None:
        """Pause the partitions `now` of a task, of which those of `before` are paused."""
        if before == now:
            return
        for partition in sorted(now - before):
            self.source.pause(self._by_number[partition])
        for partition in sorted(before - now):
            self.source.resume(self._by_number[partition])
        if now:
            self._paused[number] = now
        else:
            self._paused.pop(number, None)

    def mirror(self) -> None:
        """Commit the applied positions to the consumer group, for lag tools."""
        positions, self._left = self._left, {}
        for task in self.tasks.values():
            positions.update(self.applied(task))
        if positions:
            self.source.mirror(positions)

    def applied(self, task: LiveTask) -> dict[TopicPartition, int]:
        """The positions of a task in its inputs."""
        positions = task.applied.positions
        return {place: positions[name] for name, place in self._places[task.id.number].items()}


# A C function, since it is called for every record.
_partition: Callable[[Record], int] = methodcaller("partition")


def _place(record: Record) -> tuple[str, int]:
    return record.topic(), record.partition()
