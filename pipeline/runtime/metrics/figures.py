"""`WorkerFigures`: the state and the counts of a worker at one moment, taken on the processing thread between batches.

An HTTP thread reads only complete figures, so the counts of a task never go back while it moves between lists.
`WorkerCounters` has the sums over all tasks, for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.core.membership import TaskRole
from pipeline.core.names import GroupId, TaskId, TopicPartition
from pipeline.core.position import AppliedPosition
from pipeline.core.recovery_time import DEFAULT_SPEED, RecoverySpeed
from pipeline.ports import Store
from pipeline.runtime.group_run import GroupRun
from pipeline.runtime.live_task import LiveTask
from pipeline.runtime.task.task import Task

__all__ = ["PHASES", "TaskFigures", "WorkerCounters", "WorkerFigures", "counts_of", "task_figures"]

PHASES: Mapping[TaskRole, str] = {
    TaskRole.LIVE: "live",
    TaskRole.RESTORING: "restoring",
    TaskRole.STANDBY: "standby",
    TaskRole.LEAVING: "releasing",
    TaskRole.FAILED: "failed",
}
_ELSEWHERE = "not here"


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """Counts since the worker started."""

    records: int
    outputs: int
    commits: int
    skipped: int
    dead_lettered: int
    live: int
    restoring: int
    standby: int
    failed: int
    retried: int = 0
    duplicates: int = 0
    late_duplicates: int = 0
    rows: int = 0
    late_events: int = 0
    removed_values: int = 0
    removed_events: int = 0


def counts_of(task: LiveTask) -> Counter[str]:
    """The counts, by field name of `WorkerCounters`."""
    return Counter(
        records=task.records,
        outputs=task.outputs,
        rows=task.rows,
        commits=task.commits,
        skipped=task.rejected.skipped,
        dead_lettered=task.rejected.dead_lettered,
        retried=task.rejected.retried,
        duplicates=task.duplicates[0],
        late_duplicates=task.duplicates[1],
        late_events=task.late_events,
        removed_values=task.removed_values,
        removed_events=task.removed_events,
    )


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """One task.

    Attributes:
        counts: By field name of `WorkerCounters`, since the start of the process, with the task's earlier instances.
        role: What the worker does about the task; ABSENT if another worker has it now.
        positions: The committed positions in the inputs; empty unless the task is live.
        paused: Whether the input is paused.
        stopped_partitions: How many of its partitions a record has stopped. The others continue.
        applied: The last applied entry of a live task with a journal.
        clock_ms: The event clock of the partition that is furthest behind; None if the group keeps none.
        store: The open state of a live task with a journal. Only `usage` may be called from another thread.
    """

    counts: Mapping[str, int]
    role: TaskRole = TaskRole.ABSENT
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    paused: bool = False
    stopped_partitions: int = 0
    applied: AppliedPosition | None = None
    store: Store | None = None
    clock_ms: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker.

    Attributes:
        app: Its app.
        tasks: The tasks that it runs, restores, keeps a copy of, or has run.
        assigned: The tasks that the ring assigns to it; None until it knows the other workers.
        members: The number of live workers of the app.
        kafka_unreachable_s: How long Kafka has not answered; 0 if it answers.
        task_counts: The number of tasks of each group, whichever workers have them.
        speed: How fast it has restored tasks.
        cache_bytes: About the memory of decoded values, in all tables of its tasks.
        peers: The processes of other workers that it watches, and how many of them answer.
    """

    app: str
    tasks: Mapping[TaskId, TaskFigures]
    assigned: Collection[TaskId] | None
    members: int
    kafka_unreachable_s: float
    task_counts: Mapping[GroupId, int] = field(default_factory=dict)
    speed: RecoverySpeed = DEFAULT_SPEED
    cache_bytes: int = 0
    peers: tuple[int, int] = (0, 0)

    @property
    def not_live(self) -> list[TaskId]:
        """The assigned tasks that are not live here."""
        live = {task for task, figures in self.tasks.items() if figures.role is TaskRole.LIVE}
        return sorted(set(self.assigned or ()) - live)

    @property
    def first_tasks(self) -> list[GroupId]:
        """The groups whose first task is live here: only this worker reports the figures of such a group."""
        return [
            task.group_id
            for task, figures in sorted(self.tasks.items())
            if task.number == 0 and figures.role is TaskRole.LIVE
        ]

    def phase(self, task: TaskId) -> str:
        """What the worker does about a task, in a word."""
        figures = self.tasks.get(task)
        return PHASES.get(figures.role, _ELSEWHERE) if figures is not None else _ELSEWHERE


def task_figures(
    runs: Sequence[GroupRun], roles: Mapping[TaskId, TaskRole], ended: Mapping[TaskId, Counter[str]]
) -> dict[TaskId, TaskFigures]:
    """The figures of all tasks. `ended`: the counts of earlier instances of tasks."""
    found = {
        task: TaskFigures(ended.get(task, {}), roles.get(task, TaskRole.ABSENT)) for task in {*roles, *ended}
    }
    for run in runs:
        for task in (*run.tasks.values(), *run.leaving.values()):
            found[task.id] = _of_live(run, task, roles.get(task.id, TaskRole.LIVE), ended.get(task.id))
    return found


def _of_live(run: GroupRun, task: LiveTask, role: TaskRole, before: Counter[str] | None) -> TaskFigures:
    counts = counts_of(task)
    counts.update(before or {})
    applied, store = (task.applied, task.store) if isinstance(task, Task) else (None, None)
    paused = run.is_paused(task.id.number)
    stopped = len(task.stopped)
    return TaskFigures(counts, role, run.applied(task), paused, stopped, applied, store, task.clock_ms)
