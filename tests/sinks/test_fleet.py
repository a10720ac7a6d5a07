"""Several workers of an app with a handler and a sink, under whatever happens to them and to their database."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import chain

import pytest

from pipeline import Event, Postgres
from pipeline.config import WorkerSettings
from pipeline.errors import SinkUnreachableError, UnknownOutcomeError
from pipeline.testing.databases import MemoryDatabase
from tests.runtime.assignment.test_random_fleet import live_through_troubles
from tests.support.runtime.fleet import Fleet
from tests.support.runtime.sums import Sums
from tests.support.sinks.totals import DSN


def _row(event: Event[str, int]) -> dict[str, object]:
    return {"key": event.key, "n": event.value, "place": (event.partition, event.offset)}


def _sink() -> Postgres[str, int]:
    return Postgres(DSN, "ledger", mode="append", row=_row)


@dataclass
class SinkFleet(Fleet):
    """Its numbers are summed by one group, and written by another."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.with_sink(self.sums)
        self.troubles = random.Random(self.seed)

    @staticmethod
    def with_sink(sums: Sums) -> Sums:
        sums.app.group("rows").sink(sums.numbers, _sink())
        return sums

    @property
    def database(self) -> MemoryDatabase:
        return self.databases.of(_sink())

    def turn(self) -> None:
        """Now and then the database is restarted, or a commit's outcome is unknown."""
        chance = self.troubles.random()
        if chance < 0.01:
            self.database.end_sessions()
        elif chance < 0.03:
            self.database.fail_next("commit", UnknownOutcomeError("cut"), after=chance < 0.02)
        elif chance < 0.035:
            self.database.away = SinkUnreachableError("restarting")
        elif chance < 0.1:
            self.database.away = None
        super().turn()

    def settle(self, within_s: float = 60.0) -> None:
        super().settle(within_s * 2)

    def check(self) -> None:
        """As ever; and every number is one row, in order per key."""
        owned = self.owners()
        assert sorted(chain.from_iterable(owned.values())) == self.expected_tasks(), owned
        expected: dict[str, list[int]] = {}
        for key, number in self.sums.sent:
            expected.setdefault(key, []).append(number)
        found: dict[str, list[int]] = {}
        for row in self.database.rows("ledger"):
            found.setdefault(row["key"], []).append(row["n"])
        assert found == expected

    def expected_tasks(self) -> list[int]:
        """The numbers of the tasks of both groups."""
        return sorted(2 * [*range(self.partitions)])

    def _all_processed(self) -> bool:
        ends = len(self.broker.records("numbers"))
        done = sum(sum(task.applied.positions.values()) for node in self.nodes for task in node.live.values())
        return done >= 2 * ends


@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_to_workers_and_database_every_record_is_one_row(seed: int) -> None:
    """Joins, kills, stops, pauses, outages, doubt: the positions in the database decide."""
    chance = random.Random(seed)
    fleet = SinkFleet(partitions=chance.choice([1, 3]), seed=seed, settings=WorkerSettings())
    live_through_troubles(fleet, chance)
    fleet.check()


def test_a_worker_that_joins_takes_over_sink_tasks_at_once() -> None:
    """There is nothing to copy, so it is ready when it asks."""
    fleet = SinkFleet(partitions=4)
    fleet.troubles.random = lambda: 1.0  # type: ignore[method-assign]  # no troubles
    fleet.start("a")
    fleet.send()
    fleet.settle()
    fleet.start("b")
    fleet.send()
    fleet.settle()
    fleet.check()
    assert [len(node.live) for node in fleet.nodes] == [4, 4]
    assert {row.owner for row in fleet.database.positions()} <= {"a", "b"}


def test_a_worker_that_cannot_reach_the_database_takes_no_task_from_one_that_can() -> None:
    """Its network may be the trouble: it would hold tasks that it cannot run."""
    fleet = SinkFleet(partitions=4)
    fleet.troubles.random = lambda: 1.0  # type: ignore[method-assign]  # no troubles
    a = fleet.start("a")
    fleet.send()
    fleet.settle()
    had = {task for task in a.live if task.group == "rows"}
    away = SinkUnreachableError("no route to host")
    fleet.database.fail_next("open", away)
    b = fleet.start("b")
    assert b.worker._lifecycle._deferred_starts
    b.worker._lifecycle._deferred_starts._late[0].due_s += 30.0
    fleet.run(20.0)
    assert had <= set(a.live)
    assert {task.group for task in b.live} == {"main"}
    fleet.settle()
    fleet.check()
    assert {task.group for task in b.live} == {"main", "rows"}
