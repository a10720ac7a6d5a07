"""Each problem of an app names a runbook that exists."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pipeline.core.dead_letter_count import OpenLetters
from pipeline.core.names import GroupId, TaskId
from pipeline.core.notes import DeferredGroup
from pipeline.core.suggestions import Problem
from pipeline.runtime.status import TaskPhase, TaskStatus, WorkerStatus
from pipeline.runtime.status.app_status import GroupLetters
from pipeline.runtime.status.problems import late_groups, letter_problems, problems_of
from tests.support.pages import ROOT

NOW_MS = 10_000_000
WORKER = WorkerStatus("a", "p-1", 1, 1, waiting=False)
GROUP = GroupId("shop", "main")


def task(
    phase: TaskPhase = TaskPhase.LIVE,
    problem: str = "",
    *,
    retrying: bool = False,
    lag: int = 0,
    age_ms: int = 0,
) -> TaskStatus:
    """A task whose last entry was `age_ms` ago."""
    return TaskStatus(
        TaskId("shop", "main", 0), phase, "a", 7, lag, {}, NOW_MS - age_ms, problem=problem, retrying=retrying
    )


def problem_of(*tasks: TaskStatus, workers: Sequence[WorkerStatus] = (WORKER,)) -> Problem:
    (found,) = problems_of("shop", tasks, workers, NOW_MS)
    return found


def runbook_of(problem: Problem) -> str:
    (name,) = re.findall(r"runbooks/([a-z-]+)\.md", problem.hint)
    assert (ROOT / "runbooks" / f"{name}.md").exists()
    return str(name)


OLD_CHECKPOINT = TaskStatus(
    TaskId("shop", "main", 0), TaskPhase.LIVE, "a", 7, 0, {}, NOW_MS, checkpoint_ms=NOW_MS - 700_000
)


@pytest.mark.parametrize(
    ("problem", "runbook"),
    [
        (problem_of(task(TaskPhase.UNOWNED), workers=()), "worker-down"),
        (problem_of(task(TaskPhase.UNOWNED)), "task-not-live"),
        (problem_of(task(TaskPhase.RETIRED), task()), "partitions-changed"),
        (problem_of(task(lag=3, age_ms=6_000)), "commits-slow"),
        (problem_of(OLD_CHECKPOINT), "checkpoint-store-unavailable"),
        (
            problem_of(task(), workers=[WORKER, WorkerStatus("b", "p-2", 1, 0, waiting=True)]),
            "replace-workers",
        ),
        (problem_of(task(TaskPhase.FAILED)), "task-failed"),
        (problem_of(task(TaskPhase.FAILED, "no space\n  -> free some")), "task-failed"),
        (problem_of(task(TaskPhase.FAILED, "lost\n  -> runbooks/journal-lost.md")), "journal-lost"),
        (problem_of(task(problem="the database does not answer")), "commits-slow"),
        (problem_of(task(problem="flights[0] offset 3 is retried", retrying=True)), "poison-record"),
        (problem_of(task(TaskPhase.RESTORING, "the store has no checkpoint")), "task-not-live"),
        (letter_problems([GroupLetters(GROUP, OpenLetters(3, True, 0.0, NOW_MS))])[0], "poison-record"),
        (letter_problems([GroupLetters(GROUP, OpenLetters(90, True, 60.0, NOW_MS))])[0], "poison-record"),
        (late_groups({GROUP: [DeferredGroup("a", "p-1", "its topic is missing")]})[0], "task-not-live"),
    ],
)
def test_each_problem_names_its_runbook(problem: Problem, runbook: str) -> None:
    """An operator under pressure must not search for the page; `/`, `status` and the JSON take it from the hint."""
    assert runbook_of(problem) == runbook


def test_the_runbook_of_an_error_comes_before_the_general_one() -> None:
    """Two runbooks in one hint would leave the choice to the reader."""
    found = problem_of(task(TaskPhase.FAILED, "lost\n  -> follow runbooks/journal-lost.md"))
    assert found.hint == "follow runbooks/journal-lost.md"
