"""Finds out which inputs are processed up to their ends, for the clocks of event time: `InputChecks`.

About every 10 s, for all inputs of the groups that keep a clock, in one batch on an executor:

    1 take       the processed position of each input, as it is now
    2 request    the end for all readers, and the end of what is committed. They differ while a transaction is open
    3 skip       markers and aborted records between position and end, if both are as in the last check
    4 prove      ends that may make an input idle, through every broker: a stale leader does not know later records
    5 tell       the tasks, if the positions have not moved meanwhile and no record waits

If any request fails, the check does not count: nothing becomes idle by it. A group without a clock costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from pipeline.core.event_time import input_check_interval_s
from pipeline.core.names import TopicPartition
from pipeline.errors import PipelineError, RetriableError
from pipeline.ports import JournalReader, Pending, error_fields
from pipeline.runtime.environment import Environment
from pipeline.runtime.group_run import GroupRun

__all__ = ["InputChecks"]

_Input = tuple[GroupRun, TopicPartition]  # groups may share a topic


class _Seen(NamedTuple):
    """The position of an input, and the end of its log. `at_end`: all records before the end are processed."""

    position: int
    end: int
    at_end: bool


class InputChecks:
    """Processing thread only. `idle_s`: as `EventClock` takes it."""

    def __init__(self, runs: Sequence[GroupRun], environment: Environment, idle_s: float) -> None:
        self._runs = runs
        self._environment = environment
        self._interval_s = input_check_interval_s(idle_s)
        self._proven_after_s = (
            idle_s - 1.5 * self._interval_s
        )  # so that no clock counts an unproven check as the last
        self._next_s = environment.clock.monotonic_s()
        self._pending: Pending[Mapping[_Input, _Seen]] | None = None
        self._seen: Mapping[_Input, _Seen] = {}
        self._since_s: dict[_Input, float] = {}  # at its end at each check since then

    def turn(self) -> None:
        """Do what is due. Call it once per turn."""
        if self._pending is not None and self._pending.done():
            self._take(self._pending)
        now_s = self._environment.clock.monotonic_s()
        if self._pending is not None or now_s < self._next_s:
            return
        self._next_s = now_s + self._interval_s
        places = {
            (run, place): task.positions[name]
            for run in self._runs
            if run.plan.group.keeps_clock
            for task in run.tasks.values()
            for name, place in run.plan.record_inputs_of(task.id.number).items()
        }
        if places:
            after_s = self._proven_after_s
            doubted = {each for each, since_s in self._since_s.items() if now_s - since_s >= after_s}
            check = _check(places, self._seen, doubted, self._environment)  # 1
            self._pending = self._environment.executor.submit(check)

    def _take(self, check: Pending[Mapping[_Input, _Seen]]) -> None:
        self._pending = None
        try:
            self._seen = seen = check.result()
        except PipelineError as error:
            self._environment.log.info("input_ends_not_read", **error_fields(error))
            return
        now_s = self._environment.clock.monotonic_s()
        since_s, self._since_s = self._since_s, {}
        for run in self._runs:
            if not run.plan.group.keeps_clock:
                continue
            for task in run.tasks.values():
                at_end = set()
                for name, place in run.plan.record_inputs_of(task.id.number).items():
                    found = seen.get((run, place))
                    if found is None or not found.at_end or task.positions[name] != found.position:
                        continue
                    at_end.add(name)
                    self._since_s[run, place] = since_s.get((run, place), now_s)
                if any((run, place) in seen for place in run.plan.partitions_of(task.id.number)):
                    task.inputs_checked(at_end)  # 5


def _check(
    places: Mapping[_Input, int],
    before: Mapping[_Input, _Seen],
    doubted: Collection[_Input],
    environment: Environment,
) -> Callable[[], Mapping[_Input, _Seen]]:
    def check() -> Mapping[_Input, _Seen]:
        wanted = sorted({place for _, place in places})
        with closing(environment.journals()) as reader:
            stable_ends, ends = reader.stable_ends(wanted), reader.ends(wanted)  # 2
            seen = {
                each: _seen(each, position, stable_ends, ends, before, reader)
                for each, position in places.items()
            }
            proven = sorted({each[1] for each, found in seen.items() if found.at_end and each in doubted})
            highest = reader.highest_ends(proven, committed=False)  # 4
            return {
                each: found._replace(at_end=found.at_end and highest.get(each[1], found.end) <= found.end)
                for each, found in seen.items()
            }

    return check


def _seen(
    each: _Input,
    position: int,
    stable_ends: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    before: Mapping[_Input, _Seen],
    reader: JournalReader,
) -> _Seen:
    place = each[1]
    end = ends[place]
    if end != stable_ends[place] or position >= end:
        return _Seen(position, end, end == stable_ends[place] == position)
    known = before.get(each)
    if known is None or (known.position, known.end) != (position, end):
        return _Seen(position, end, at_end=False)
    return _Seen(position, end, known.at_end or _is_empty(place, position, end, reader))  # 3


def _is_empty(place: TopicPartition, position: int, end: int, reader: JournalReader) -> bool:
    """Whether the log has no committed record there."""
    try:
        return next(iter(reader.read(place, position, end)), None) is None
    except RetriableError:  # retention is deleting records there
        return False
