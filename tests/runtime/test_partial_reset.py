"""A reset of one partition of a task that has several: the others keep their rows and positions."""

from __future__ import annotations

import pytest

from pipeline import App, Context, Event
from pipeline.errors import InputError
from pipeline.testing import Step, TestDriver

PARTITIONS, TASKS = 6, 2
RESET = 4  # of task 0, which also has 0 and 2

STEPS = [
    Step.AFTER_FENCE,
    Step.AFTER_CHOICE,
    Step.DURING_REPLAY,
    Step.AFTER_REPLAY,
    Step.BEFORE_ACQUIRE,
    Step.AFTER_ENTRY,
    Step.AFTER_FLUSH,
    Step.DURING_COMMIT,
    Step.AFTER_COMMIT,
    Step.BEFORE_APPLY,
    Step.AFTER_ACQUIRE,
]


class Counting:
    """Counts per key. `by`: what it adds for each record, another number after the handler was fixed."""

    def __init__(self, by: int = 1, tasks: int = TASKS) -> None:
        self.app = App("counting", tasks=tasks)
        self.events = self.app.topic("events", key=str, value=int)
        self.counts = self.app.table("counts", key=str, value=int)
        self.by = by
        self.app.handler(self.events)(self.count)

    def count(self, event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(self.counts)
        table[event.key] = table.get(event.key, 0) + self.by


def started() -> tuple[Counting, TestDriver]:
    """A driver that has counted two records in each partition by one."""
    counting = Counting()
    driver = TestDriver(counting.app, partitions=PARTITIONS)
    for _ in range(2):
        for partition in range(PARTITIONS):
            driver.send(counting.events, "a", 1, partition=partition)
    driver.run()
    counting.by = 10
    return counting, driver


EXPECTED = {partition: {"a": 20 if partition == RESET else 2} for partition in range(PARTITIONS)}


def test_only_its_partition_is_processed_again() -> None:
    """A partition with a wrong state must not cost the others their work."""
    counting, driver = started()
    driver.reset("earliest", partition=RESET)
    driver.run()
    assert driver.table_by_partition(counting.counts) == EXPECTED
    assert driver.positions()["events"] == 2


@pytest.mark.parametrize("empty_disk", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_during_the_restore_changes_nothing(step: Step, *, empty_disk: bool) -> None:
    """Between the deletion of the range and the acquire entry, the state is at the RESET entry."""
    counting, driver = started()
    driver.stop()
    driver.reset("earliest", partition=RESET)
    driver.crash_at(step)
    driver.run()
    assert driver.crashed
    driver.restart(empty_disk=empty_disk)
    driver.run()
    assert driver.table_by_partition(counting.counts) == EXPECTED


def test_rows_before_the_reset_are_kept_in_one_replay() -> None:
    """An empty disk replays the rows of all partitions and the reset in one batch."""
    counting, driver = started()
    driver.reset("earliest", partition=RESET)
    driver.restart(empty_disk=True)
    driver.run()
    assert driver.table_by_partition(counting.counts) == EXPECTED


def test_a_crash_between_the_rows_and_the_ranges_of_a_reset_changes_nothing() -> None:
    """The rows before it are written with the position before it, so the next replay repeats both."""
    counting, driver = started()
    driver.stop()
    driver.reset("earliest", partition=RESET)
    for nth in (1, 2, 3):
        driver.restart(empty_disk=nth == 1)
        driver.crash_at(Step.DURING_REPLAY, nth=nth)
        driver.run()
    driver.restart()
    driver.run()
    assert driver.table_by_partition(counting.counts) == EXPECTED


def test_a_partition_that_does_not_exist_is_refused() -> None:
    """The command would otherwise reset nothing and report success."""
    _, driver = started()
    with pytest.raises(InputError, match="have no partition 6"):
        driver.reset("earliest", partition=PARTITIONS)
