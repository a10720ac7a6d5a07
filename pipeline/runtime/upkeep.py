"""What a worker does by the clock beside processing: mirror positions, watch that its topics stay the same."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.errors import FatalTaskError, PipelineError
from pipeline.ports import Pending, TopicInfo
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.plan import inputs_changed
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

    def turn(self) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        """Do what is due; live tasks that must not go on, with the reason."""
        now = self._world.clock.monotonic_s()
        if now >= self._next_mirror_s:
            self._next_mirror_s = now + self._settings.mirror_interval_s
            for run in self._runs:
                run.mirror()
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        if self._check is not None and self._check.done():
            check, self._check = self._check, None
            try:
                found = self._judge(check.result())
            except PipelineError as error:
                self._world.log.info("topics_not_checked", reason=error.message)
        if now >= self._next_check_s and self._check is None:
            self._next_check_s = now + self._settings.check_interval_s
            names = sorted({name for run in self._runs for name in run.plan.identity.inputs})
            cluster = self._world.cluster
            self._check = self._world.executor.submit(lambda: cluster.describe(names))
        return found

    def explain(self, run: GroupRun, task: TaskId, error: PipelineError) -> PipelineError:
        """A position out of range has another reason when the topic is not the one it was."""
        try:
            now = self._world.cluster.describe(list(run.plan.identity.inputs))
        except PipelineError:
            return error
        return _error(run, task, now) or error

    def _judge(self, now: dict[str, TopicInfo]) -> list[tuple[GroupRun, TaskId, PipelineError]]:
        found: list[tuple[GroupRun, TaskId, PipelineError]] = []
        for run in self._runs:
            for task in run.tasks.values():
                error = _error(run, task.id, now)
                if error is not None:
                    found.append((run, task.id, error))
        return found


def _error(run: GroupRun, task: TaskId, now: dict[str, TopicInfo]) -> PipelineError | None:
    change = inputs_changed(run.plan, now)
    if change is None:
        return None
    return FatalTaskError(f"task {task}: {change.reason}", hint=f"follow {change.runbook}")
