"""Whether workers can be stopped while the other ones continue with all their tasks: `reasons_to_wait`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipeline.core.departures import process_age
from pipeline.errors import InputError
from pipeline.runtime.status.app_status import AppStatus, TaskPhase, WorkerStatus
from pipeline.runtime.status.groups import task_ranges

__all__ = ["reasons_to_wait"]

# In these phases, a task is restored, or will be as soon as a worker takes it.
_BEING_RESTORED = (TaskPhase.RESTORING, TaskPhase.MOVING, TaskPhase.UNOWNED, TaskPhase.NEW)


def reasons_to_wait(found: AppStatus, leaving: Collection[str]) -> list[str]:
    """Why the workers `leaving` should not be stopped now, all at once; empty if they can be.

    A worker runs the groups that it was started with, with two exceptions: a group that could not start on it, and a
    worker of another version, which waits. Such a worker may have other tasks, and whether it has these is not known.

    Raises:
        InputError: One of `leaving` is not a live worker of the app.
    """
    reasons = []
    workers = {worker.worker: worker for worker in found.workers}
    unknown = sorted(set(leaving) - workers.keys())
    if unknown:
        are = "is not a live worker" if len(unknown) == 1 else "are not live workers"
        raise InputError(
            f"{', '.join(unknown)} {are} of {found.app}",
            hint=f"live workers: {', '.join(sorted(workers)) or 'none'}",
        )
    for phase in _BEING_RESTORED:
        tasks = [status.task for status in found.tasks if status.phase is phase]
        if tasks:
            reasons.append(f"{task_ranges(tasks)}: {phase.value}")
    handed = [
        status.task
        for status in found.tasks
        if status.worker in leaving and status.phase in {TaskPhase.LIVE, TaskPhase.MOVING}
    ]
    if not handed:
        return reasons
    staying = [worker for worker in found.workers if worker.worker not in leaving]
    for group in sorted({task.group_id for task in handed}):
        tasks = [task for task in handed if task.group_id == group]
        now = {workers[name].rings.get(group.group) for name in leaving if not workers[name].waiting}
        remaining = _that_share(staying, group.group, now)
        if not remaining:
            reasons.append(
                f"{task_ranges(tasks)}: no worker can take them, {_why_none(staying, group.group)}"
            )
        unable = [worker for worker in remaining if worker in found.deferred.get(group, ())]
        if unable:
            reasons.append(
                f"{task_ranges(tasks)}: group {group.group} has not started on {', '.join(unable)}, which may "
                "get these tasks"
            )
    return reasons


def _why_none(staying: Sequence[WorkerStatus], group: str) -> str:
    if not staying:
        return "there is no other live worker"
    others = sorted(worker.worker for worker in staying if group in worker.rings)
    if others:
        return f"the other live workers run another version of the app: {', '.join(others)}"
    return f"no other live worker runs group {group}"


def _that_share(others: Sequence[WorkerStatus], group: str, now: Collection[str | None]) -> list[str]:
    """The workers that will share all tasks of a group: those with the ring of the oldest, if it is one of `now`."""
    able = [worker for worker in others if group in worker.rings]
    if not able:
        return []
    ring = min(able, key=lambda worker: process_age(worker.process)).rings[group]
    return [worker.worker for worker in able if worker.rings[group] == ring] if ring in now else []
