"""The status by group, and problems by cause."""

from __future__ import annotations

import random

import msgspec
import pytest

from pipeline.core.dead_letter_count import OpenLetters
from pipeline.core.names import GroupId, TaskId
from pipeline.core.suggestions import Problem
from pipeline.runtime.status import (
    AppStatus,
    TaskPhase,
    TaskStatus,
    group_statuses,
    problem_causes,
    read_status,
    status_document,
)
from pipeline.runtime.status.app_status import GroupLetters
from pipeline.runtime.status.groups import task_ranges
from pipeline.runtime.status.problems import letter_problems
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.fleet import Fleet


def tasks_of(group: str, *partitions: int) -> list[TaskId]:
    return [TaskId("app", group, partition) for partition in partitions]


@pytest.mark.parametrize(
    ("partitions", "shown"),
    [((), ""), ((5,), "main/5"), ((3, 1, 0, 2, 7), "main/0-3,7"), ((0, 2, 4), "main/0,2,4")],
)
def test_consecutive_partitions_are_a_range(partitions: tuple[int, ...], shown: str) -> None:
    """Forty names in a line are not read."""
    assert task_ranges(tasks_of("main", *partitions)) == shown


def test_ranges_name_exactly_the_tasks() -> None:
    """An operator acts on the tasks that are named."""
    chosen = random.Random(1)
    for _ in range(200):
        partitions = set(chosen.sample(range(30), chosen.randint(1, 30)))
        text = task_ranges(tasks_of("main", *partitions)).removeprefix("main/")
        found = set()
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
        assert found == partitions
    assert task_ranges(tasks_of("b", 1) + tasks_of("a", 0, 1)) == "a/0-1, b/1"


def test_causes_are_equal_if_they_differ_only_in_numbers() -> None:
    """A wrong value in each partition is one cause; another exception or another next step is not."""

    def problem(partition: int, cause: str, hint: str = "fix it") -> Problem:
        return Problem(f"app/main/{partition}: {cause}", hint, tasks_of("main", partition), cause)

    causes = problem_causes(
        [
            problem(0, "t[0] offset 5: ValueError"),
            problem(1, "t[1] offset 77: ValueError"),
            problem(2, "t[2] offset 5: KeyError"),
            problem(3, "t[3] offset 5: ValueError", "restart it"),
            Problem("no worker of app-1 is alive", "start one"),
            Problem("no worker of app-2 is alive", "start one"),
        ]
    )
    assert [cause.text for cause in causes] == [
        "main/0-1: t[0] offset 5: ValueError (the first of 2)",
        "main/2: t[2] offset 5: KeyError",
        "main/3: t[3] offset 5: ValueError",
        "no worker of app-1 is alive",
        "no worker of app-2 is alive",
    ]


def test_a_group_sums_its_tasks() -> None:
    """The line of a group stands for all its tasks: the sum, and the worst of them."""
    tasks = [
        TaskStatus(
            tasks_of("main", 0)[0], TaskPhase.LIVE, "a", 3, 10, {}, 5_000, restore_s=1.0, records_per_s=2.0
        ),
        TaskStatus(
            tasks_of("main", 1)[0],
            TaskPhase.LIVE,
            "a",
            3,
            30,
            {},
            2_000,
            problem="t",
            retrying=True,
            records_per_s=0.5,
        ),
        TaskStatus(
            tasks_of("main", 2)[0], TaskPhase.FAILED, "b", 3, 0, {}, 0, restore_s=7.5, problem="broken"
        ),
    ]
    letters = [GroupLetters(GroupId("app", "main"), OpenLetters(4, True, 0.0, 0))]
    (group,) = group_statuses(AppStatus("app", tasks, [], [], letters))
    assert group.phases == {TaskPhase.LIVE: 2, TaskPhase.FAILED: 1}
    assert (group.lag, group.max_lag, group.records_per_s) == (40, 30, 2.5)
    assert (group.oldest_commit_ms, group.open_letters, group.retried, group.restore_s) == (2_000, 4, 1, 7.5)
    (group,) = group_statuses(AppStatus("app", tasks, [], [], letters), active_since_ms=3_000)
    assert group.records_per_s == 2.0


def test_a_rate_above_the_threshold_is_a_problem_without_open_letters() -> None:
    """Records that are replayed at once, and fail again, leave few open letters."""
    letters = [GroupLetters(GroupId("app", "main"), OpenLetters(0, True, 12.6, 1))]
    (problem,) = letter_problems(letters, 12)
    assert problem.text == "group app/main wrote 13 dead letters in the last minute, more than 12"
    assert letter_problems(letters, 13) == []


def test_the_throughput_does_not_vary_with_single_commits() -> None:
    """An operator divides the lag by it; a commit of one record soon after a large one says nothing."""
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.settle()
    for _ in range(8):
        send(fleet, 19)
        fleet.run(1.8)
        send(fleet, 1)
        fleet.run(0.2)
    (status,) = look(fleet).tasks
    assert status.records_per_s == pytest.approx(10, rel=0.15)


def test_a_single_commit_is_measured_from_the_entry_before_it() -> None:
    """A task with little input has one commit in many seconds, and is not without throughput."""
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.settle()
    for _ in range(2):
        send(fleet, 10)
        fleet.settle()
        fleet.run(15.0)
    found = look(fleet)
    (status,) = found.tasks
    assert status.records_per_s is not None
    assert 0 < status.records_per_s < 10 / 15.0
    document = msgspec.json.decode(msgspec.json.encode(status_document(found)))
    (group,) = document["groups"]
    assert group["records_per_s"] == status.records_per_s
    assert (group["group"], group["task_count"], group["phases"], group["lag"]) == ("main", 1, {"live": 1}, 0)


def look(fleet: Fleet) -> AppStatus:
    return read_status(
        "sums", MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker), fleet.clock.wall_ms()
    )


def send(fleet: Fleet, count: int) -> None:
    for value in range(count):
        fleet.sums.driver.send(fleet.sums.numbers, "k1", value)
