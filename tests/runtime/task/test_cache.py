"""The budget of the decoded values of all tables of a process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.task.cache import KEPT, CacheBudget, equal_share
from tests.support.runtime.fleet import Fleet
from tests.support.tables import Rig, table_def


class Part:
    """A table that takes so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def measure(self) -> int:
        return self.size

    def trim(self, most_bytes: int) -> None:
        self.size = min(self.size, most_bytes)


def test_only_tables_above_an_equal_share_are_cut() -> None:
    """A small table of one task keeps its values beside a large one of another task."""
    parts = [Part(10), Part(900), Part(50), Part(700)]
    budget = CacheBudget(800)
    budget.committed(parts)
    assert [part.size for part in parts] == [10, 320, 50, 320]
    assert budget.total_bytes == 700 == 800 * KEPT


def test_a_table_that_grows_takes_from_the_largest() -> None:
    """The budget is that of the process: the commit of one task trims the tables of another."""
    large, small = Part(900), Part(1)
    budget = CacheBudget(1_000)
    budget.committed([large])
    assert large.size == 900
    small.size = 300
    budget.committed([small])
    assert (large.size, small.size) == (575, 300)


def test_the_tables_of_a_task_that_ended_take_nothing() -> None:
    """Otherwise each move of a task would shrink the cache of the others."""
    gone, stays = Part(700), Part(700)
    budget = CacheBudget(1_000)
    budget.committed([gone])
    budget.forget([gone])
    budget.forget([gone])
    budget.committed([stays])
    assert (stays.size, budget.total_bytes) == (700, 700)


@given(st.lists(st.integers(0, 10_000), max_size=30), st.integers(0, 100_000))
def test_an_equal_share_fits_and_is_the_largest_that_fits(sizes: list[int], total: int) -> None:
    """Max-min fairness, with any sizes."""
    share = equal_share(sizes, total)
    assert sum(min(size, share) for size in sizes) <= total
    if sum(sizes) > total:
        assert sum(min(size, share + 1) for size in sizes) > total
    else:
        assert share >= max(sizes, default=0)


@pytest.mark.parametrize("length", [10, 1_000, 100_000])
def test_the_values_of_a_table_stay_within_the_budget(length: int) -> None:
    """Whatever the size of the values, which the budget knows by samples only."""
    rig = Rig(table_def(value=str))
    for commit in range(50):
        for number in range(20):
            rig.table[f"{commit}-{number}"] = "x" * length
        rig.commit(cache_bytes=1_000_000)
        assert sum(400 + length for _ in rig.table._slots) <= 1_600_000
    assert len(rig.table._slots) > 0


def test_tasks_that_leave_a_worker_leave_its_budget() -> None:
    """Their tables would otherwise stay in memory as long as the process, and shrink the cache of the others."""
    fleet = Fleet.at_rest("a")
    worker = fleet.nodes[0].worker
    of_four_tasks = worker.figures().cache_bytes
    fleet.start("b")
    fleet.settle()
    assert len(fleet.owners()["a"]) == 2
    assert 0 < worker.figures().cache_bytes < of_four_tasks
