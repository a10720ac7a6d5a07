"""The status of an app by group, and its problems by cause: a summary that does not grow with the number of tasks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.core.names import TaskId
from pipeline.core.suggestions import Problem, counted
from pipeline.runtime.status.app_status import AppStatus, TaskPhase, TaskStatus

__all__ = ["GroupStatus", "ProblemCause", "group_statuses", "problem_causes", "spare_workers", "task_ranges"]

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The tasks of a group. `phases`: the number of tasks in each phase, of those that occur.

    `records_per_s`: the sum over its tasks; None if no task has committed twice. `oldest_commit_ms`: of the tasks' last
    entries, the oldest; 0 if there is none. `open_letters`: None without a dead-letter topic. `retried`: the
    tasks in which a record is retried now. `restore_s`: the slowest predicted restore.
    """

    group: str
    tasks: int
    phases: Mapping[TaskPhase, int]
    lag: int
    max_lag: int
    records_per_s: float | None
    oldest_commit_ms: int
    open_letters: int | None
    retried: int
    restore_s: float


@dataclass(frozen=True, slots=True)
class ProblemCause:
    """Problems with an equal cause: the first of them, their number, and all their tasks."""

    first: Problem
    count: int
    tasks: Sequence[TaskId]

    @property
    def text(self) -> str:
        """One line: the tasks as ranges and the cause. If the texts differ, it is the first one."""
        if not self.tasks:
            return self.first.text
        text = f"{task_ranges(self.tasks)}: {self.first.cause}"
        return text if self.count == 1 else f"{text} (the first of {self.count:,})"


def group_statuses(found: AppStatus, active_since_ms: int = 0) -> list[GroupStatus]:
    """The groups of an app, in the order of their names.

    The rate of a task whose last commit is older than `active_since_ms` counts as 0.
    """
    letters = {each.group.group: each.letters.open for each in found.letters}
    by_group: dict[str, list[TaskStatus]] = {}
    for status in found.tasks:
        by_group.setdefault(status.task.group, []).append(status)
    return [
        _group(name, tasks, letters.get(name), active_since_ms) for name, tasks in sorted(by_group.items())
    ]


def _group(
    name: str, tasks: Sequence[TaskStatus], open_letters: int | None, active_since_ms: int
) -> GroupStatus:
    counted = Counter(status.phase for status in tasks)
    rates = [
        status.records_per_s if status.entry_ms >= active_since_ms else 0.0
        for status in tasks
        if status.records_per_s is not None
    ]
    commits = [status.entry_ms for status in tasks if status.entry_ms]
    return GroupStatus(
        group=name,
        tasks=len(tasks),
        phases={phase: counted[phase] for phase in TaskPhase if phase in counted},
        lag=sum(status.lag for status in tasks),
        max_lag=max(status.lag for status in tasks),
        records_per_s=sum(rates) if rates else None,
        oldest_commit_ms=min(commits, default=0),
        open_letters=open_letters,
        retried=sum(status.retrying for status in tasks),
        restore_s=max(status.restore_s for status in tasks),
    )


def spare_workers(found: AppStatus) -> str:
    """A line about the workers without a task, if the app has more workers than tasks; otherwise empty.

    This is not a problem: a spare worker takes over a task when another one ends.
    """
    workers = sum(not worker.waiting for worker in found.workers)
    tasks = sum(status.phase is not TaskPhase.RETIRED for status in found.tasks)
    spare = workers - tasks
    if not tasks or spare <= 0:
        return ""
    return (
        f"{counted(spare, 'worker')} {'has' if spare == 1 else 'have'} no task: {counted(workers, 'worker')} share "
        f"{counted(tasks, 'task')}. A spare worker only gets a task when another worker ends"
    )


def problem_causes(problems: Iterable[Problem]) -> list[ProblemCause]:
    """The problems, with equal causes as one.

    Causes are equal if they differ only in numbers, such as partitions and offsets, and have the same next step.
    """
    found: dict[tuple[str, str, bool], list[Problem]] = {}
    for problem in problems:
        cause = problem.cause if problem.tasks else problem.text
        key = _NUMBER.sub("#", cause), _NUMBER.sub("#", problem.hint), bool(problem.tasks)
        found.setdefault(key if problem.tasks else (cause, problem.hint, False), []).append(problem)
    return [
        ProblemCause(same[0], len(same), sorted({task for problem in same for task in problem.tasks}))
        for same in found.values()
    ]


def task_ranges(tasks: Iterable[TaskId]) -> str:
    """The tasks by group with ranges of partitions: `main/0-3,7`. Several groups are separated by a comma and a blank.

    Example:
        >>> task_ranges(TaskId("app", "main", partition) for partition in (0, 1, 2, 3, 7))
        'main/0-3,7'
    """
    found = []
    for group, same in groupby(sorted(set(tasks)), key=lambda task: task.group):
        partitions = [task.number for task in same]
        # Consecutive numbers have the same distance from their indexes.
        runs = [
            [number for _, number in run]
            for _, run in groupby(enumerate(partitions), key=lambda at: at[1] - at[0])
        ]
        shown = ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
        found.append(f"{group}/{shown}")
    return ", ".join(found)
