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

    Every worker of an app runs all its groups, with two exceptions: a group that could not start on it, and a worker
    of another version, which waits. Such a worker may have other tasks, and whether it has these is not known.

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
    remaining = _that_share(
        [worker for worker in found.workers if worker.worker not in leaving],
        {workers[worker].parameters for worker in leaving if not workers[worker].waiting},
    )
    if not remaining:
        others = sorted(workers.keys() - set(leaving))
        why = (
            f"the other live workers run another version of the app: {', '.join(others)}"
            if others
            else "there is no other live worker"
        )
        return [*reasons, f"{task_ranges(handed)}: no worker can take them, {why}"]
    for group, waiting in sorted(found.deferred.items()):
        tasks = [task for task in handed if task.group_id == group]
        unable = [worker for worker in remaining if worker in waiting]
        if tasks and unable:
            reasons.append(
                f"{task_ranges(tasks)}: group {group.group} has not started on {', '.join(unable)}, which may "
                "get these tasks"
            )
    return reasons


def _that_share(others: Sequence[WorkerStatus], parameters: Collection[str]) -> list[str]:
    """The workers that will share all tasks: those with the ring of the oldest one, if it is the same ring as now."""
    if not others:
        return []
    oldest = min(others, key=lambda worker: process_age(worker.process))
    if oldest.parameters not in parameters:
        return []
    return [worker.worker for worker in others if worker.parameters == oldest.parameters]
