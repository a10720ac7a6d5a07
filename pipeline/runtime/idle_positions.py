"""Moves the positions of idle inputs past transaction markers and aborted records: `IdlePositions`.

A transaction's marker follows its last record, and an aborted transaction leaves only records that no reader sees. An
input position is the offset after the last committed record. Once retention has deleted the records of an idle
partition, that position is below the log start. A restart could not distinguish this from records that were deleted
before they were processed, so the task would fail. Hence:

    1 idle: an input has been at the same position for QUIET_S, and none of its records wait
    2 read: its stable end, and whether a committed record precedes it
    3 if the input is still idle at that position: commit the end, with the next commit of its task if that is busy

A crash leaves the old or the new positions. Both are correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.core.names import TopicPartition
from pipeline.errors import PipelineError, RetriableError
from pipeline.ports import JournalReader, Pending, error_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import LiveTask

__all__ = ["QUIET_S", "IdlePositions"]

QUIET_S = 60.0

_Input = tuple[GroupRun, TopicPartition]  # groups may share a topic
_Found = Mapping[
    _Input, tuple[int, int]
]  # the position of an input, and its end without a committed record between


@dataclass(frozen=True, slots=True)
class _IdleInput:
    """An input that is idle at `position` since `since_s`, which is also renewed by each check."""

    position: int
    since_s: float


class IdlePositions:
    """Processing thread only. Reads on the executor, for all due tasks at once."""

    def __init__(self, runs: Sequence[GroupRun], environment: Environment) -> None:
        self._runs = runs
        self._environment = environment
        self._quiet: dict[_Input, _IdleInput] = {}
        self._pending_check: Pending[_Found] | None = None

    def turn(self) -> None:
        """Do what is due. A call every few seconds is enough."""
        self._take()
        now = self._environment.clock.monotonic_s()
        idle = {
            (run, place): position
            for run in self._runs
            for task in run.tasks.values()
            for place, position in run.applied(task).items()
            if not task.unfinished(place.partition) and place.partition not in task.stopped
        }
        self._quiet = {found: self._seen(found, position, now) for found, position in idle.items()}
        due = {found: each.position for found, each in self._quiet.items() if now - each.since_s >= QUIET_S}
        if due and self._pending_check is None:
            self._quiet.update({found: _IdleInput(position, now) for found, position in due.items()})
            self._pending_check = self._environment.executor.submit(_check_step(due, self._environment))

    def _seen(self, found: _Input, position: int, now: float) -> _IdleInput:
        known = self._quiet.get(found)
        return known if known is not None and known.position == position else _IdleInput(position, now)

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
                ends = {
                    name: found[run, place][1]
                    for name, place in run.plan.inputs_of(task.id.number).items()
                    if (run, place) in found and self._is_still_idle(task, name, place, found[run, place][0])
                }
                if ends:
                    task.skip_to(ends)

    @staticmethod
    def _is_still_idle(task: LiveTask, name: str, place: TopicPartition, position: int) -> bool:
        """Whether no record of an input was processed, or waits, since it was seen at `position`."""
        busy = task.unfinished(place.partition) or place.partition in task.stopped
        return not busy and task.positions[name] == position


def _check_step(due: Mapping[_Input, int], environment: Environment) -> Callable[[], _Found]:
    def check() -> _Found:
        with closing(environment.journals()) as reader:
            ends = reader.stable_ends(sorted({place for _, place in due}))
            return {
                (run, place): (at, ends[place])
                for (run, place), at in due.items()
                if _is_empty(place, at, ends[place], reader)
            }

    return check


def _is_empty(place: TopicPartition, position: int, end: int, reader: JournalReader) -> bool:
    """Whether the log has offsets from `position` on, but no committed record."""
    try:
        return end > position and next(iter(reader.read(place, position, end)), None) is None
    except RetriableError:  # retention is deleting records there
        return False
