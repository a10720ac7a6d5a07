"""`pipeline status` and the log of workers whose tasks own several partitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.runtime.status import (
    AppStatus,
    TaskPhase,
    WorkerStatus,
    read_status,
    spare_workers,
    status_document,
)
from pipeline.testing import Step
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.several import Several


def look(several: Several) -> AppStatus:
    broker = several.driver.broker
    reader = MemoryJournalReader(broker)
    return read_status("several", MemoryCluster(broker), reader, several.driver.clock.wall_ms())


def test_a_task_names_its_partitions() -> None:
    """Which task a partition with lag belongs to would otherwise be arithmetic that only the design explains."""
    found = look(Several.begun())
    assert [list(status.partitions) for status in found.tasks] == [[0, 2, 4], [1, 3, 5]]
    tasks = status_document(found)["tasks"]
    assert [task["partitions"] for task in tasks] == [[0, 2, 4], [1, 3, 5]]
    assert tasks[1]["positions"].keys() >= {"numbers[1]", "numbers[3]", "numbers[5]"}


def test_a_task_that_never_ran_names_its_partitions() -> None:
    """The genesis entry has no positions of topics that are read from their first record."""
    several = Several()
    several.driver.crash_at(Step.AFTER_GENESIS)
    several.driver.run()
    found = look(several)
    assert {status.phase for status in found.tasks} == {TaskPhase.NEW}
    assert [list(status.partitions) for status in found.tasks] == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("tasks", [None, 6])
def test_a_task_with_one_partition_names_it(tasks: int | None) -> None:
    """In both formats of journals."""
    found = look(Several.begun(tasks=tasks))
    assert [list(status.partitions) for status in found.tasks] == [[number] for number in range(6)]


def test_the_lag_is_that_of_all_partitions() -> None:
    """A partition that is not counted could be behind without a word."""
    several = Several.begun()
    several.driver.stop()
    several.send("b", partitions=[1, 2, 4])
    assert [status.lag for status in look(several).tasks] == [2, 1]


def test_log_events_of_a_task_name_its_partitions() -> None:
    """A search for a partition's number must find the events of the task that has it."""
    several = Several.begun()
    events = several.driver.log_events("task_live")
    assert {event["task"]: event["partitions"] for event in events} == {0: [0, 2, 4], 1: [1, 3, 5]}


def with_workers(found: AppStatus, count: int) -> AppStatus:
    workers = [WorkerStatus(f"w-{n}", f"w-{n}-x", 1, 1, waiting=False) for n in range(count)]
    return replace(found, workers=workers)


def test_workers_without_a_possible_task_are_a_warning() -> None:
    """More workers than tasks look like more capacity, and are not."""
    found = look(Several.begun())
    for count in (1, 2):
        assert spare_workers(with_workers(found, count)) == ""
    line = spare_workers(with_workers(found, 3))
    assert line.startswith("1 worker has no task: 3 workers share 2 tasks")
    assert status_document(with_workers(found, 3))["warnings"] == [line]
    assert spare_workers(with_workers(found, 5)).startswith("3 workers have no task: 5 workers share 2 tasks")
    assert spare_workers(with_workers(replace(found, tasks=()), 5)) == ""
