"""What a worker does by the clock beside processing.

It mirrors positions to the consumer group, watches that its topics stay the same, and looks whether an idle task
was fenced: a task that commits finds that out by itself, one without input would hold a state that is not the
last for as long as nothing arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition
from pipeline.errors import FatalTaskError, FencedError, PipelineError, UnreachableError
from pipeline.ports import Pending, TopicInfo
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.journal import read_entries
from pipeline.runtime.outage import Outage
from pipeline.runtime.plan import inputs_changed, outputs_changed
from pipeline.runtime.world import World

__all__ = ["Upkeep"]


class Upkeep:
    """Called once a turn; asks the cluster on the executor, so that a slow answer delays nothing."""

    def __init__(self, runs: Sequence[GroupRun], world: World, settings: WorkerSettings) -> None:
        self._runs = runs
        self._world = world
        self._settings = settings
        now = world.clock.monotonic_s()
        self._next_check_s = now + settings.check_interval_s
        self._next_mirror_s = now + settings.mirror_interval_s
        self._check: Pending[dict[str, TopicInfo]] | None = None
        self._asked_s = now
        self._outage = Outage(world.clock, world.log)
        self._look: Pending[dict[TaskId, _Seen]] | None = None
        self._looked_at: dict[TaskId, int] = {}  # the journal's end at the last look

    def turn(self) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        """Do what is due; live tasks that must not go on, with the reason."""
        now = self._world.clock.monotonic_s()
        if now >= self._next_mirror_s:
            self._next_mirror_s = now + self._settings.mirror_interval_s
            for run in self._runs:
                run.mirror()
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        if self._check is not None and not self._check.done():
            self._outage.unanswered(self._asked_s)
        elif self._check is not None:
            check, self._check = self._check, None
            try:
                found = self._judge(check.result())
                self._outage.answered()
            except UnreachableError as error:
                self._outage.unanswered(self._asked_s, error.message)
            except PipelineError as error:
                self._world.log.info("topics_not_checked", reason=error.message)
        if now >= self._next_check_s and self._check is None:
            self._next_check_s = now + self._settings.check_interval_s
            self._asked_s = now
            plans = [run.plan for run in self._runs]
            names = sorted({name for plan in plans for name in (*plan.placed_by, *plan.identity.inputs)})
            cluster = self._world.cluster
            self._check = self._world.executor.submit(lambda: cluster.describe(names))
            self._begin_look()
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            try:
                found += self._taken(look.result())
            except PipelineError as error:
                self._world.log.info("journals_not_checked", reason=error.message)
        return found

    def explain(self, run: GroupRun, task: TaskId, error: PipelineError) -> PipelineError:
        """A position out of range has another reason when the topic is not the one it was."""
        try:
            now = self._world.cluster.describe(list(run.plan.identity.inputs))
        except PipelineError:
            return error
        return _error(run, task, now) or error

    def _begin_look(self) -> None:
        idle = [task for run in self._runs for task in run.tasks.values() if task.idle]
        if not idle or self._look is not None:
            return
        places = {task.id: task.applied for task in idle}
        seen, world = dict(self._looked_at), self._world
        self._look = world.executor.submit(lambda: _ends_beyond(places, seen, world))

    def _taken(self, ends: Mapping[TaskId, _Seen]) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        for run in self._runs:
            for task in run.tasks.values():
                seen = ends.get(task.id)
                if seen is None or seen.seq != task.applied.seq:
                    continue  # it went on meanwhile
                self._looked_at[task.id] = seen.end
                if seen.taken:
                    error = FencedError(f"task {task.id}: its journal goes on beyond entry {seen.seq}")
                    found.append((run, task.id, error))
        return found

    def _judge(self, now: dict[str, TopicInfo]) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        for run in self._runs:
            for task in run.tasks.values():
                error = _error(run, task.id, now, task.context.written)
                if error is not None:
                    found.append((run, task.id, error))
        return found


class _Seen(NamedTuple):
    """A journal's end, and whether there are entries of others beyond ours, `seq`."""

    seq: int
    end: int
    taken: bool


def _ends_beyond(
    places: Mapping[TaskId, AppliedPosition], seen: Mapping[TaskId, int], world: World
) -> dict[TaskId, _Seen]:
    """What has come to the journals of `places` since the last look."""
    reader = world.journals()
    try:
        ends = reader.stable_ends([task.journal for task in places])
        result = {}
        for task, applied in places.items():
            end = ends[task.journal]
            if end in {applied.next_offset, seen.get(task)}:
                continue
            # Mostly the marker of our own last entry.
            entries = read_entries(task, reader, applied.next_offset, end, None)
            result[task] = _Seen(applied.seq, end, next(entries, None) is not None)
        return result
    finally:
        reader.close()


def _error(
    run: GroupRun, task: TaskId, now: dict[str, TopicInfo], written: Sequence[str] = ()
) -> PipelineError | None:
    change = inputs_changed(run.plan, now) or outputs_changed(run.plan, written, now)
    if change is None:
        return None
    return FatalTaskError(f"task {task}: {change.reason}", hint=f"follow {change.runbook}")
