"""A group of sinks under the real runtime, on a database in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import App, Delete, Event, PipelineError, Postgres
from pipeline.api.sinks import Row
from pipeline.core.names import TaskId
from pipeline.core.sink_positions import InputNow, PositionRow
from pipeline.errors import (
    FencedError,
    HandlerError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
)
from pipeline.ops.topics.cluster_state import readers_of
from pipeline.ports import Step
from pipeline.runtime.sinks.sessions import Sessions
from pipeline.runtime.sinks.writer import SinkWriter, claim
from pipeline.testing import DriverDatabases, Faults, TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.steps import SINK_STEPS
from tests.support.sinks.totals import DSN, Totals

AWAY = SinkUnreachableError("the server is gone")
DOUBT = UnknownOutcomeError("the connection was cut in the middle of COMMIT")


def test_rows_and_positions_are_written_together() -> None:
    """What a sink is for."""
    totals = Totals(partitions=3)
    for n in range(50):
        totals.send(n, key=f"k{n % 7}")
    totals.send(None, key="k3")
    totals.driver.run()
    totals.check()
    assert sum(row.position for row in totals.database.positions()) == 51
    totals.driver.stop()
    assert {row.process for row in totals.database.positions()} == {""}
    # The status then shows that nothing is left to do.
    assert sum(status.lag for status in totals.status().tasks) == 0


@pytest.mark.parametrize("step", SINK_STEPS)
@pytest.mark.parametrize("deferred", [False, True])
def test_a_crash_at_each_step_of_a_sink_leaves_rows_exact(step: Step, deferred: bool) -> None:
    """A database transaction is whole or not there, wherever its client ends."""
    totals = Totals(deferred=deferred, seed=3)
    totals.driver.crash_at(step)
    totals.send(1, 2, 3, None, 5)
    totals.driver.run()
    if step is Step.SINK_AFTER_RELEASE:
        totals.driver.stop()
    assert totals.driver.crashed
    totals.driver.restart(empty_disk=True)
    totals.send(6, 7)
    totals.driver.run()
    totals.check()


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_whose_outcome_is_unknown_is_looked_up(happened: bool) -> None:
    """Taking it for either would lose rows or write them twice."""
    totals = Totals()
    totals.send(1, 2)
    totals.driver.run()
    totals.database.fail_next("commit", DOUBT, after=happened)
    totals.send(3, 4)
    totals.driver.run()
    totals.send(5)
    totals.driver.run()
    totals.check()
    outcomes = [said["outcome"] for said in totals.driver.log_events("sink_commit_settled")]
    assert outcomes == ["committed" if happened else "aborted"]
    # Doing again what has happened would be noticed by the fence, and cost a claim.
    assert totals.driver.log_events("task_superseded") == []


def test_a_fenced_owner_writes_no_row() -> None:
    """The fence comes first: what a user's statements do outside of the transaction would be done, too."""
    databases, sink = DriverDatabases(), Postgres[str, int](DSN, "t", key="k", row=lambda _event: None)
    sessions = Sessions(lambda: databases.open(sink, "shop"))
    task, inputs = TaskId("shop", "rows", 0), {"orders": InputNow("id", "cluster", 1)}
    with sessions.one() as session:
        session.begin()
        session.put(task.group_id, [PositionRow("orders", 0, 5, 0, "", "", "id", "cluster", 1)], keep=True)
        session.commit()
    environment = Totals().driver.environment()
    older = SinkWriter(claim(task, 1, "a", "p1", 0, inputs, sessions, environment), sessions, environment)
    newer = SinkWriter(claim(task, 1, "b", "p2", 0, inputs, sessions, environment), sessions, environment)
    databases.of(sink).fail_next("write", AWAY)
    with pytest.raises(FencedError, match="its epoch is 1, the database has"):
        older.write({"orders": 6}, [])
    assert databases.of(sink).faults.left() == ["write"]
    databases.of(sink).faults = Faults()
    assert newer.write({"orders": 6}, []).positions == {"orders": 6}


@pytest.mark.parametrize("call", ["open", "begin", "lock", "move", "write", "commit"])
@pytest.mark.parametrize("error", [AWAY, RetriableError("deadlock detected"), DOUBT])
def test_a_step_that_fails_is_made_again(call: str, error: PipelineError) -> None:
    """Databases are restarted, and transactions meet each other."""
    totals = Totals(partitions=2)
    totals.send(1, 2, 3)
    totals.driver.run()
    if call == "open":
        totals.database.fail_next("begin", AWAY)  # so that a session is opened
    totals.database.fail_next(call, error)
    totals.send(4, 5, 6)
    totals.driver.run()
    totals.driver.stop()
    totals.driver.restart()
    totals.driver.run()
    totals.check()


def test_a_record_that_the_database_refuses_stops_its_task_and_all_before_it_is_committed() -> None:
    """The guilty record is found, however large the batch that it was in."""
    totals = Totals.begun()
    totals.database.refuses.append({"amount": 13})
    totals.send(2, 3, 13, 4)
    with pytest.raises(
        HandlerError, match=r"offset 3 cannot be written by Postgres .* violates a constraint"
    ):
        totals.driver.run()
    assert [row["amount"] for row in totals.driver.rows(totals.ledger)] == [1, 2, 3]
    totals.database.refuses.clear()
    totals.driver.restart()
    totals.driver.run()
    totals.check()


def test_a_refused_record_is_skipped_where_that_is_asked_for() -> None:
    """In neither of its sinks is anything of it left, and what follows is written."""
    totals = Totals(on_error="skip")
    totals.database.refuses.append({"amount": 13})
    totals.send(1, 2, 13, 4, 13, 6)
    totals.driver.run()
    totals.sent = [(key, amount) for key, amount in totals.sent if amount != 13]
    totals.check()
    assert len(totals.driver.log_events("record_rejected")) == 2


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_record_that_cannot_be_read_gets_the_policy(on_error: str) -> None:
    """Before the database has seen it."""
    totals = Totals(on_error=on_error)
    totals.send(1)
    totals.driver.send_raw(totals.amounts, b"a", b"no number")
    totals.send(2)
    if on_error == "stop":
        with pytest.raises(HandlerError, match="offset 1 cannot be written"):
            totals.driver.run()
        totals.sent.pop()
    else:
        totals.driver.run()
    totals.check()


def test_rows_of_other_columns_belong_to_their_record() -> None:
    """A statement is made for the columns of the first row."""
    app = App("odd")
    topic = app.topic("amounts", key=str, value=int)
    wide: Callable[[Event[str, int]], Row] = lambda e: {"k": e.key} if e.value else {"k": e.key, "v": 1}  # noqa: E731
    sink: Postgres[str, int] = Postgres(DSN, "t", key="k", row=wide)
    app.group("rows").sink(topic, sink, on_error="skip")
    driver = TestDriver(app)
    for value in (0, 1, 0):
        driver.send(topic, f"k{value}", value)
    driver.run()
    assert driver.rows(sink) == [{"k": "k0", "v": 1}]


@pytest.mark.parametrize("together", [True, False])
def test_two_sinks_of_one_table_are_written_in_the_order_of_the_records(together: bool) -> None:
    """One writes rows and one deletes them: which came last must not depend on when a transaction ends."""
    app = App("odd")
    topic = app.topic("amounts", key=str, value=int | None)
    rows: Postgres[str, int | None] = Postgres(
        DSN, "t", key="k", row=lambda e: {"k": e.key, "v": e.value} if e.value else None
    )
    gone: Callable[[Event[str, int | None]], Row] = lambda e: None if e.value else Delete({"k": e.key})  # noqa: E731
    group = app.group("rows")
    group.sink(topic, rows)
    group.sink(topic, Postgres(DSN, "t", key="k", row=gone))
    driver = TestDriver(app)
    for value in (1, None, 2):
        driver.send(topic, "a", value)
        if not together:
            driver.run()
    driver.run()
    assert driver.rows(rows) == [{"k": "a", "v": 2}]


def test_a_topic_that_only_a_sink_reads_has_a_reader() -> None:
    """So that `pipeline topics apply` does not give it more partitions."""
    totals = Totals.begun()
    totals.driver.clock.advance(4.0)
    totals.driver.run()
    cluster, reader = MemoryCluster(totals.driver.broker), MemoryJournalReader(totals.driver.broker)
    found = readers_of(["amounts"], cluster.topics(), cluster, reader)
    assert [str(each.group) for each in found["amounts"]] == [str(totals.task.group_id)]
