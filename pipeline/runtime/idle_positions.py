"""Moves the positions of idle tasks past transaction markers and aborted records: `IdlePositions`.

A transaction's marker follows its last record, and an aborted transaction leaves only records that no reader sees. An
input position is the offset after the last committed record. Once retention has deleted the records of an idle
partition, that position is below the log start. A restart could not distinguish this from records that were deleted
before they were processed, so the task would fail. Hence:

    1 idle: a task is idle, and has been at the same positions for QUIET_S
    2 read: the stable end of each input, and whether a committed record precedes it
    3 if the task is still idle at those positions: commit the ends

A crash leaves the old or the new positions. Both are correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.names import TaskId, TopicPartition
from pipeline.errors import PipelineError, RetriableError
from pipeline.ports import JournalReader, Pending, error_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun

__all__ = ["QUIET_S", "IdlePositions"]

QUIET_S = 60.0

_Places = Mapping[TopicPartition, int]
_Found = tuple[
    _Places, _Places
]  # a task's positions, and the ends of the inputs without a committed record after them
_NOTHING: _Found = ({}, {})


@dataclass(frozen=True, slots=True)
class _IdleTask:
    """A task that is idle at `places` since `since_s`, which is also renewed by each check."""

    places: _Places
    since_s: float


class IdlePositions:
    """Processing thread only. Reads on the executor, for all due tasks at once."""

    def __init__(self, runs: Sequence[GroupRun], environment: Environment) -> None:
        self._runs = runs
        self._environment = environment
        self._quiet: dict[TaskId, _IdleTask] = {}
        self._pending_check: Pending[Mapping[TaskId, _Found]] | None = None

    def turn(self) -> None:
        """Do what is due. A call every few seconds is enough."""
        self._take()
        now = self._environment.clock.monotonic_s()
        idle = {task.id: run.applied(task) for run in self._runs for task in run.tasks.values() if task.idle}
        self._quiet = {task: self._seen(task, places, now) for task, places in idle.items()}
        due = {task: each.places for task, each in self._quiet.items() if now - each.since_s >= QUIET_S}
        if due and self._pending_check is None:
            self._quiet.update({task: _IdleTask(places, now) for task, places in due.items()})
            self._pending_check = self._environment.executor.submit(_check_step(due, self._environment))

    def _seen(self, task: TaskId, places: _Places, now: float) -> _IdleTask:
        known = self._quiet.get(task)
        return known if known is not None and known.places == places else _IdleTask(places, now)

    def _take(self) -> None:
        if self._pending_check is None or not self._pending_check.done():
            return
        check, self._pending_check = self._pending_check, None
        try:
            found = check.result()
        except PipelineError as error:
            self._environment.log.info("input_ends_not_read", **error_fields(error))
            return
        for run in self._runs:
            for task in run.tasks.values():
                before, ends = found.get(task.id, _NOTHING)
                if ends and task.idle and run.applied(task) == before:
                    task.skip_to({place.topic: end for place, end in ends.items()})


def _check_step(
    due: Mapping[TaskId, _Places], environment: Environment
) -> Callable[[], Mapping[TaskId, _Found]]:
    def check() -> Mapping[TaskId, _Found]:
        with closing(environment.journals()) as reader:
            ends = reader.stable_ends([place for places in due.values() for place in places])
            return {
                task: (places, {p: ends[p] for p, at in places.items() if _is_empty(p, at, ends[p], reader)})
                for task, places in due.items()
            }

    return check


def _is_empty(place: TopicPartition, position: int, end: int, reader: JournalReader) -> bool:
    """Whether the log has offsets from `position` on, but no committed record."""
    try:
        return end > position and next(iter(reader.read(place, position, end)), None) is None
    except RetriableError:  # retention is deleting records there
        return False
