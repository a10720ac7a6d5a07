"""How often a worker of many tasks commits."""

from __future__ import annotations

from collections import Counter

from pipeline.core.names import TaskId
from pipeline.runtime.commit.commit_rate import CommitRate
from pipeline.testing import ManualClock

TASKS = [TaskId("app", "main", number) for number in range(64)]


def test_few_tasks_never_wait() -> None:
    """The rate is for workers of many; four tasks at ten commits a second are far below it."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200)
    for _ in range(100):
        clock.advance(0.1)
        commit_rate.turn()
        assert all(commit_rate.may(task) for task in TASKS[:4])


def test_many_tasks_keep_to_the_rate_and_take_turns() -> None:
    """The first task must not commit ten times while another one waits."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200)
    commits: Counter[TaskId] = Counter()
    last: dict[TaskId, float] = dict.fromkeys(TASKS, 0.0)
    for _ in range(10_000):
        clock.advance(0.001)
        commit_rate.turn()
        for task in TASKS:
            if clock.monotonic_s() - last[task] >= 0.1 and commit_rate.may(task):
                commits[task] += 1
                last[task] = clock.monotonic_s()
    assert 1_900 <= sum(commits.values()) <= 2_050  # in ten seconds
    assert max(commits.values()) - min(commits.values()) <= 2


def test_a_task_that_left_the_queue_delays_no_other() -> None:
    """It was moved to another worker while it waited."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 10)
    commit_rate.turn()
    assert [commit_rate.may(task) for task in TASKS[:3]] == [True, False, False]
    commit_rate.forget(TASKS[1])
    clock.advance(0.1)
    commit_rate.turn()
    assert commit_rate.may(TASKS[2])
