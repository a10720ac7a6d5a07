"""Sink tasks of several partitions: every start may choose another number, and results are those of a partition."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Postgres
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.inputs import default_tasks
from pipeline.core.names import TaskId
from pipeline.core.sink_positions import InputNow, PositionRow
from pipeline.errors import ConfigError, FencedError, HandlerError
from pipeline.ports import Step
from pipeline.runtime.sinks.sessions import Sessions
from pipeline.runtime.sinks.writer import SinkWriter, claim
from pipeline.testing import DriverDatabases
from tests.runtime.assignment.test_random_fleet import live_through_troubles
from tests.sinks.test_fleet import SinkFleet
from tests.support.runtime.steps import SINK_STEPS
from tests.support.runtime.sums import Sums
from tests.support.sinks.totals import DSN, Totals

PARTITIONS = 6
INPUTS = {"orders": InputNow("id", "cluster", PARTITIONS)}
counts = st.sampled_from([None, 1, 2, 4, PARTITIONS])


def sent_to_each(totals: Totals, *amounts: int) -> None:
    for amount in amounts:
        for partition in range(PARTITIONS):
            totals.driver.send(totals.amounts, f"p{partition}", amount, partition=partition)
            totals.sent.append((f"p{partition}", amount))


@pytest.mark.parametrize("step", SINK_STEPS)
def test_a_crash_at_each_step_leaves_the_rows_of_all_partitions_exact(step: Step) -> None:
    """A transaction contains rows of several partitions."""
    totals = Totals(partitions=PARTITIONS, tasks=2, deferred=True, seed=3)
    totals.driver.crash_at(step)
    sent_to_each(totals, 1, 2)
    totals.driver.run()
    if step is Step.SINK_AFTER_RELEASE:
        totals.driver.stop()
    assert totals.driver.crashed
    totals.driver.restart(empty_disk=True)
    sent_to_each(totals, 3)
    totals.driver.run()
    totals.check()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(counts, st.none() | st.tuples(st.sampled_from(SINK_STEPS), st.integers(1, 9))), max_size=5
    )
)
def test_each_start_may_choose_another_number_of_tasks(
    starts: list[tuple[int | None, tuple[Step, int] | None]],
) -> None:
    """Rows of positions name partitions, so no start depends on the tasks of the one before."""
    totals = Totals(partitions=PARTITIONS, settings=WorkerSettings(worker_id="w", max_records_per_commit=4))
    for tasks, crash in [*starts, (3, None)]:
        totals.choose_tasks(tasks)
        totals.driver.restart()
        if crash is not None:
            totals.driver.crash_at(crash[0], nth=crash[1])
        sent_to_each(totals, len(totals.sent))
        totals.driver.run()
    totals.check()
    assert len(totals.driver.worker.runs[0].tasks) == 3


def test_a_sink_group_has_at_most_the_default_number_of_tasks() -> None:
    """A thousand claims, each with a connection, would be a slow start."""
    totals = Totals(partitions=40)
    totals.send(1)
    totals.driver.run()
    totals.check()
    assert len(totals.driver.worker.runs[0].tasks) == default_tasks(40) < 40


def test_more_tasks_than_partitions_are_refused() -> None:
    """A task without input would only cost a claim."""
    totals = Totals(partitions=2, tasks=3)
    with pytest.raises(ConfigError, match="tasks=3, and its inputs have 2 partitions"):
        totals.driver.run()


@pytest.mark.parametrize("tasks", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("before", [None, 1, 2, 3, 4])
def test_status_shows_the_tasks_of_the_last_start_only(before: int | None, tasks: int | None) -> None:
    """Those of an earlier number of tasks would look like tasks without a worker."""
    totals = Totals(partitions=4, tasks=before)
    totals.send(*range(9), key="p")
    totals.driver.run()
    totals.choose_tasks(tasks)
    totals.driver.restart()
    totals.send(1)
    totals.driver.run()
    totals.driver.clock.advance(4.0)
    totals.driver.run()
    count = tasks or 4
    shown = {status.task.number: list(status.partitions) for status in totals.status().tasks}
    assert shown == {number: list(range(number, 4, count)) for number in range(count)}
    assert sum(status.lag for status in totals.status().tasks) == 0


def test_a_reset_of_one_partition_moves_only_its_position() -> None:
    """The rows of the others would be written twice."""
    totals = Totals(partitions=PARTITIONS, tasks=2)
    sent_to_each(totals, 1, 2)
    totals.driver.run()
    before = {row.partition: row for row in totals.database.positions()}
    totals.driver.reset("earliest", group="rows", partition=4)
    for row in totals.database.positions():
        reset = row.partition % 2 == 0
        assert row.epoch == before[row.partition].epoch + reset
        assert row.position == (0 if row.partition == 4 else 2)
    totals.driver.run()
    found = sorted(row["account"] for row in totals.driver.rows(totals.ledger))
    assert found == sorted([f"p{p}" for p in range(PARTITIONS)] * 2 + ["p4"] * 2)


@pytest.mark.parametrize("refused_by", ["the row function", "the database"])
def test_a_record_stops_only_its_partition(refused_by: str) -> None:
    """With one task for each partition, the others would continue, too."""
    totals = Totals(partitions=PARTITIONS, tasks=2)
    sent_to_each(totals, 1)
    totals.driver.run()
    before = list(totals.sent)
    if refused_by == "the database":
        totals.database.refuses.append({"amount": 13, "account": "p2"})
        totals.driver.send(totals.amounts, "p2", 13, partition=2)
    else:
        totals.driver.send_raw(totals.amounts, b"p2", b"no number", partition=2)
    sent_to_each(totals, 2, 3)
    sent = totals.sent
    totals.driver.run()
    totals.sent = before + [(key, amount) for key, amount in sent[len(before) :] if key != "p2"]
    totals.check()
    (event,) = totals.driver.log_events("partition_stopped")
    assert (event["task"], event["partitions"]) == (0, [0, 2, 4])
    assert (event["topic"], event["partition"], event["offset"]) == ("amounts", 2, 1)
    totals.database.refuses.clear()
    if refused_by == "the database":
        sent.insert(len(before), ("p2", 13))
        totals.driver.restart()
        totals.driver.run()
        totals.sent = sent
        totals.check()


def test_a_task_fails_once_all_its_partitions_are_stopped() -> None:
    """A worker that can do nothing more must say so and end."""
    totals = Totals(partitions=4, tasks=2)
    for partition in (0, 2):
        totals.driver.send_raw(totals.amounts, b"a", b"no number", partition=partition)
    with pytest.raises(HandlerError, match="task totals/rows/0"):
        totals.driver.run()
    assert list(totals.driver.failures) == [("rows", 0)]


class Shop:
    """The rows of a group in a database, and processes that claim its tasks."""

    def __init__(self) -> None:
        sink = Postgres[str, int](DSN, "t", key="k", row=lambda _event: None)
        databases = DriverDatabases()
        self.sessions = Sessions(lambda: databases.open(sink, "shop"))
        self.environment = Totals().driver.environment()
        self.database = databases.of(sink)
        rows = [
            PositionRow("orders", p, 5, p, "", "", "id", "cluster", PARTITIONS) for p in range(PARTITIONS)
        ]
        with self.sessions.one() as session:
            session.begin()
            session.put(TaskId("shop", "rows", 0).group_id, rows, keep=False)
            session.commit()

    def claim(self, number: int, tasks: int, process: str) -> SinkWriter:
        task = TaskId("shop", "rows", number)
        hold = claim(task, tasks, process, process, 0, INPUTS, self.sessions, self.environment)
        return SinkWriter(hold, self.sessions, self.environment)


def test_a_claim_raises_the_epoch_of_all_partitions() -> None:
    """Otherwise the older owner could move those that are not raised."""
    shop = Shop()
    older, newer = shop.claim(1, 2, "older"), shop.claim(1, 2, "newer")
    assert {row.epoch for row in shop.database.positions() if row.partition % 2} == {newer.hold.seq}
    for name in older.hold.positions:
        with pytest.raises(FencedError):
            older.write({**older.hold.positions, name: 6}, [])
    assert newer.write(dict.fromkeys(newer.hold.positions, 6), []).positions == {
        "orders": 6,
        "orders/1": 6,
        "orders/2": 6,
    }


@pytest.mark.parametrize("tasks", [1, 3, PARTITIONS])
def test_an_owner_with_another_number_of_tasks_fences_the_older_one(tasks: int) -> None:
    """A worker of the last version may be paused, and continue after its successor has started."""
    shop = Shop()
    older = shop.claim(0, 2, "older")
    newer = [shop.claim(number, tasks, "newer") for number in range(tasks)]
    for name in older.hold.positions:
        with pytest.raises(FencedError):
            older.write({**older.hold.positions, name: 6}, [])
    for writer in newer:
        writer.write(dict.fromkeys(writer.hold.positions, 6), [])
    assert {row.position for row in shop.database.positions()} == {6}


@dataclass
class SinkFleetOfFewTasks(SinkFleet):
    """Its sink group has fewer tasks than partitions."""

    sink_tasks: int = 2

    def with_tasks(self, sums: Sums) -> None:
        group = next(each for each in declared_app(sums.app).groups if each.name == "rows")
        group.tasks = self.sink_tasks

    def __post_init__(self) -> None:
        super().__post_init__()
        self.with_tasks(self.sums)

    def expected_tasks(self) -> list[int]:
        return sorted([*range(self.partitions), *range(self.sink_tasks)])


@pytest.mark.parametrize("seed", range(400, 406))
def test_whatever_happens_every_record_of_each_partition_is_one_row(seed: int) -> None:
    """Joins, kills, stops, pauses, outages, doubt: the positions in the database decide."""
    chance = random.Random(seed)
    fleet = SinkFleetOfFewTasks(
        partitions=5, seed=seed, settings=WorkerSettings(), sink_tasks=chance.choice([1, 2, 3])
    )
    live_through_troubles(fleet, chance)
    fleet.check()
