"""How often a worker of many tasks commits."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.core.commit_pace import commit_cost
from pipeline.core.names import TaskId
from pipeline.runtime.commit.commit_rate import CommitRate, TaskPace
from pipeline.testing import ManualClock

TASKS = [TaskId("app", "main", number) for number in range(64)]


def test_few_tasks_never_wait() -> None:
    """The rate is for workers of many; four tasks at ten commits a second are far below it."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    for _ in range(100):
        clock.advance(0.1)
        commit_rate.turn()
        assert all(commit_rate.may(task) for task in TASKS[:4])


def test_many_tasks_keep_to_the_rate_and_take_turns() -> None:
    """The first task must not commit ten times while another one waits."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
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
    commit_rate = CommitRate(clock, 10, 100)
    commit_rate.turn()
    assert [commit_rate.may(task) for task in TASKS[:3]] == [True, False, False]
    commit_rate.forget(TASKS[1])
    clock.advance(0.1)
    commit_rate.turn()
    assert commit_rate.may(TASKS[2])


def test_a_task_that_committed_at_a_limit_leaves_the_queue() -> None:
    """It committed without a token, because it was full. Its place would make all others wait until it asks again."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 10, 100)
    commit_rate.turn()
    assert [commit_rate.may(task) for task in TASKS[:2]] == [True, False]
    TaskPace(TASKS[1], commit_rate, {}).began([])
    clock.advance(0.1)
    commit_rate.turn()
    assert commit_rate.may(TASKS[2])


def test_commits_that_are_due_come_before_early_ones() -> None:
    """Otherwise the early commits of a few tasks would make the others wait longer than the interval."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 10, 100)
    commit_rate.turn()
    assert commit_rate.may(TASKS[0])
    assert not commit_rate.may(TASKS[1])
    clock.advance(0.1)
    commit_rate.turn()
    assert not commit_rate.may_early(TASKS[2])
    assert commit_rate.may(TASKS[1])


@pytest.mark.parametrize(("workers", "per_s"), [(1, 200), (4, 50), (50, 4)])
def test_the_workers_of_an_app_share_the_early_commits(workers: int, per_s: int) -> None:
    """Each of fifty workers must not add 200 commits per second to what the brokers do already."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    early = 0
    for _ in range(10_000):
        clock.advance(0.001)
        commit_rate.turn(workers)
        early += sum(commit_rate.may_early(task) for task in TASKS[:8])
    assert 10 * per_s <= early <= 10 * per_s + 20


def test_many_tasks_share_the_early_commits_fairly() -> None:
    """On a worker of 300 tasks, the first ones must not commit early at the cost of the last ones."""
    tasks = [TaskId("app", "main", number) for number in range(300)]
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    commits: Counter[TaskId] = Counter()
    for _ in range(15_000):
        clock.advance(0.001)
        commit_rate.turn()
        commits.update(task for task in tasks if commit_rate.may_early(task))
    assert 3_000 <= sum(commits.values()) <= 3_020
    assert max(commits.values()) - min(commits.values()) <= 1


def test_an_early_commit_pays_for_the_partitions_that_it_writes() -> None:
    """The brokers' work grows with the partitions of a transaction."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    pace = TaskPace(TASKS[0], commit_rate, {"out": 64})
    outputs = [("out", b"key-%d" % number, b"", 0) for number in range(640)]
    early = 0
    for _ in range(10_000):
        clock.advance(0.001)
        commit_rate.turn()
        if commit_rate.may_early(TASKS[0]):
            early += 1
            commit_rate.began(TASKS[0], clock.monotonic_s(), 0.0, commit_cost(outputs, {"out": 64}) - 1)
    pace.close()
    assert 2_000 / 9 <= early <= 2_000 / 9 + 4  # a commit of 64 partitions costs 1 + 64 / 8


@pytest.mark.parametrize(("inputs", "cost"), [(1, 1.0), (4, 4.0), (32, 5.0)])
def test_a_commit_of_several_partitions_pays_for_those_that_it_writes(inputs: int, cost: float) -> None:
    """32 tasks of 1,000 partitions would otherwise cost a broker several times what 1,000 tasks did."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    paces = [TaskPace(task, commit_rate, {"out": 1_000}) for task in TASKS[:32]]
    outputs = [("out", b"key-%d" % number, b"", 0) for number in range(32)]
    commits: Counter[int] = Counter()
    for pace in paces:
        pace.opened()
    for _ in range(10_000):
        clock.advance(0.001)
        commit_rate.turn()
        for number, pace in enumerate(paces):
            if pace.due(backlog=True):  # behind: no early commits
                commits[number] += 1
                pace.began(outputs, inputs)
                pace.ended()
                pace.opened()
    assert 2_000 / cost * 0.98 <= commits.total() <= 2_000 / cost + 5
    assert max(commits.values()) - min(commits.values()) <= 2


def test_a_full_commit_takes_no_tokens() -> None:
    """It cannot wait: its records fill the memory. Its partitions must not delay the commits of other tasks."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    commit_rate.turn()
    TaskPace(TASKS[1], commit_rate, {}).began([("out", b"k", b"", 0)] * 99, 32)
    assert all(commit_rate.may(task) for task in TASKS[2:20])


def test_a_task_that_keeps_up_commits_soon_after_the_last_end() -> None:
    """Latency is the reason for early commits; without the rest, the client would have to back off."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    pace = TaskPace(TASKS[0], commit_rate, {})
    clock.advance(1.0)
    commit_rate.turn()
    pace.opened()
    clock.advance(0.001)
    assert pace.due(backlog=False)
    pace.began([])
    clock.advance(0.01)
    pace.ended()
    pace.opened()
    found = []
    for _ in range(3):
        commit_rate.turn()
        found.append(pace.due(backlog=False))
        clock.advance(0.0045)
    assert found == [False, False, True]  # the rest is 8 ms


def test_a_full_poll_means_whole_intervals_for_a_while() -> None:
    """A worker that is behind must spend its CPU time on records, not on commits."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    pace = TaskPace(TASKS[0], commit_rate, {})
    clock.advance(1.0)
    commit_rate.turn()
    commit_rate.polled(4_000, more_wait=True)
    pace.opened()
    found = []
    for _ in range(11):
        commit_rate.turn()
        found.append(pace.due(backlog=False))
        clock.advance(0.01)
    assert found == [False] * 10 + [True]


def test_an_idle_worker_polls_as_long_as_before() -> None:
    """A commit under way makes polls shorter. After its end, a worker must not use more CPU time than before."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    pace = TaskPace(TASKS[0], commit_rate, {})
    commit_rate.turn()
    assert commit_rate.poll_wait_s(0.005, 4) == 0.005
    pace.began([])
    assert commit_rate.poll_wait_s(0.005, 4) == 0.001
    pace.ended()
    assert commit_rate.poll_wait_s(0.005, 4) == 0.005


def test_a_task_that_left_during_a_commit_shortens_no_poll() -> None:
    """A fenced task leaves with its commit in progress; the worker would poll busily until its end."""
    commit_rate = CommitRate(ManualClock(), 200, 100)
    pace = TaskPace(TASKS[0], commit_rate, {})
    pace.began([])
    pace.close()
    assert commit_rate.poll_wait_s(0.005, 4) == 0.005


def test_a_worker_without_an_idle_turn_is_behind() -> None:
    """Of records of 10 kB, the client keeps fewer than a full poll; the worker would never know that it is behind."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    found = []
    for _ in range(12):
        commit_rate.turn()
        found.append(commit_rate.behind)
        commit_rate.polled(500, more_wait=False)
        clock.advance(0.011)
    assert found == [False] * 10 + [True] * 2
    commit_rate.turn()
    commit_rate.polled(0, more_wait=False)
    commit_rate.turn()
    assert not commit_rate.behind


def test_an_empty_poll_of_one_group_of_two_is_not_idle() -> None:
    """The groups of a worker share its CPU time: the busy one needs it."""
    clock = ManualClock()
    commit_rate = CommitRate(clock, 200, 100)
    for _ in range(12):
        commit_rate.turn()
        commit_rate.polled(500, more_wait=False)
        commit_rate.polled(0, more_wait=False)
        clock.advance(0.011)
    assert commit_rate.behind
