"""A group of sinks under the real runtime, on a database in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import App, Delete, Event, PipelineError, Postgres, Topic
from pipeline.api.sinks import Row
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.core.names import TaskId
from pipeline.core.sink_positions import InputNow, PositionRow
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
    FencedError,
    HandlerError,
    RetriableError,
    SinkUnreachableError,
    UnknownOutcomeError,
    UnreachableError,
)
from pipeline.ops.topics.cluster_state import readers_of
from pipeline.ports import Step
from pipeline.ports.databases import TableShape
from pipeline.runtime.reset import plan_reset, start_at
from pipeline.runtime.sinks.sessions import Sessions
from pipeline.runtime.sinks.writer import SinkWriter, claim
from pipeline.runtime.status import AppStatus, TaskPhase, read_status
from pipeline.testing import DriverDatabases, Faults, TestDriver
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.steps import SINK_STEPS
from tests.support.sinks.totals import DSN, Totals, entry

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
    # Whoever asks for the status afterwards sees that nothing is left to do.
    assert sum(status.lag for status in look(totals).tasks) == 0


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
    older = SinkWriter(claim(task, "a", "p1", 0, inputs, sessions, environment), sessions, environment)
    newer = SinkWriter(claim(task, "b", "p2", 0, inputs, sessions, environment), sessions, environment)
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


def test_a_database_that_is_away_is_said_once_and_waited_for() -> None:
    """A line for each attempt would bury what matters."""
    totals = Totals(partitions=4)
    totals.send(1)
    totals.driver.run()
    totals.database.away = AWAY
    for n in range(20):
        totals.send(n, key=f"k{n}")
    for _ in range(200):
        totals.driver.step()
        totals.driver.clock.advance(0.02)
    assert len(totals.driver.log_events("database_unreachable")) == 1
    totals.database.away = None
    totals.driver.run()
    assert len(totals.driver.log_events("database_reachable")) == 1
    totals.check()


def test_a_worker_stops_while_its_database_is_away() -> None:
    """A deployment must not hang on it; what was open is written by the next worker."""
    totals = Totals.begun()
    totals.database.away = AWAY
    totals.send(2)
    totals.driver.step()
    with pytest.raises(UnreachableError, match="the last rows were not written"):
        totals.driver.stop()
    totals.database.away = None
    totals.driver.restart()
    totals.driver.run()
    totals.check()


def test_other_groups_continue_while_a_database_is_away() -> None:
    """One group's trouble is not another's."""
    totals = Totals()
    copy = totals.app.topic("copy", key=str, value=int | None)
    totals.driver.create_topics()
    totals.app.handler(totals.amounts)(lambda event, ctx: ctx.send(copy, event.key, event.value))
    totals.send(1)
    totals.driver.run()
    totals.database.away = AWAY
    totals.send(2)
    for _ in range(100):
        totals.driver.step()
        totals.driver.clock.advance(0.02)
    assert [event.value for event in totals.driver.outputs(copy)] == [1, 2]
    totals.database.away = None
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


def test_positions_that_are_gone_stop_the_start() -> None:
    """Beginning again would append every row a second time."""
    totals = Totals()
    totals.send(1, 2)
    totals.driver.run()
    totals.driver.clock.advance(10)
    totals.driver.run()
    totals.driver.stop()
    totals.database.lose_positions()
    with pytest.raises(FatalTaskError, match="existed before") as caught:
        totals.driver.run()
    assert "runbooks/sink-positions-lost.md" in str(caught.value)


def test_a_reset_begins_again_on_purpose() -> None:
    """The rows stay; an upsert writes them again, an append doubles them."""
    totals = Totals(partitions=2)
    for n in range(6):
        totals.send(n, key=f"k{n}")
    totals.driver.run()
    totals.driver.reset(group="rows")
    totals.driver.run()
    assert len(totals.driver.rows(totals.ledger)) == 12
    assert len(totals.driver.rows(totals.last)) == 6
    totals.database.lose_positions()
    totals.driver.stop()
    totals.driver.reset("latest", group="rows")
    totals.driver.restart()
    totals.driver.run()
    assert len(totals.driver.rows(totals.ledger)) == 12


def test_a_database_brought_back_from_a_backup_is_followed() -> None:
    """Its rows and positions are of one moment, so what came since is written again; the worker need not be told."""
    totals = Totals.begun()
    backup = totals.database.copy()
    totals.send(2, 3)
    totals.driver.run()
    totals.database.restore(backup)
    totals.send(4)
    totals.driver.run()
    totals.check()


def test_a_backup_never_brings_an_epoch_back() -> None:
    """Notes and old sessions would take the new owner for an older one."""
    totals = Totals.begun()
    backup = totals.database.copy()
    for _ in range(3):
        totals.driver.restart()
        totals.driver.run()
    before = totals.database.positions()[0].epoch
    totals.driver.stop()
    totals.database.restore(backup)
    totals.driver.restart()
    totals.driver.run()
    assert totals.database.positions()[0].epoch > before


def test_a_recreated_topic_is_refused() -> None:
    """The old positions mean nothing in it."""
    totals = Totals.begun()
    totals.driver.stop()
    totals.driver.recreate(totals.amounts)
    with pytest.raises(ConfigError, match="was deleted and created again"):
        totals.driver.run()


def test_a_reset_plan_has_no_position_in_a_recreated_topic() -> None:
    """The rows name the topic of a position, so an operator is not promised records of the old one."""
    totals = Totals.begun()
    declared, environment = declared_app(totals.app), totals.driver.environment()

    def position() -> int | None:
        groups = [group for group in declared.groups if group.name == "rows"]
        [planned] = plan_reset(declared, groups, None, start_at(["earliest"]), environment)
        return planned.inputs[0].position

    assert position() == 1
    totals.driver.stop()
    totals.driver.recreate(totals.amounts)
    assert position() is None


def test_a_group_begins_at_the_end_where_that_is_asked_for() -> None:
    """Once, at its first start; afterwards it has positions."""
    totals = Totals(settings=WorkerSettings(worker_id="test", start="latest"))
    totals.send(1, 2)
    totals.driver.run()
    totals.sent.clear()
    totals.driver.restart()
    totals.send(3)
    totals.driver.run()
    totals.check()


def test_an_input_that_is_added_begins_at_its_start() -> None:
    """The positions of the others stay."""
    totals = Totals.begun()
    totals.driver.stop()
    more = totals.app.topic("more", key=str, value=int | None)
    totals.driver.create_topics()
    declared_app(totals.app).groups[0].sink(more, Postgres(DSN, "more", mode="append", row=entry))
    totals.driver.send(more, "b", 7)
    totals.driver.run()
    totals.check()
    assert [row["amount"] for row in totals.database.rows("more")] == [7]


def look(totals: Totals) -> AppStatus:
    broker = totals.driver.broker
    return read_status(
        "totals", MemoryCluster(broker), MemoryJournalReader(broker), totals.driver.clock.wall_ms()
    )


def test_status_shows_sink_tasks_with_owner_epoch_position_and_lag() -> None:
    """The status is read from Kafka only: the operator may not be able to reach the database."""
    totals = Totals(partitions=2)
    for n in range(6):
        totals.send(n, key=f"k{n}")
    totals.driver.run()
    totals.driver.clock.advance(4.0)
    totals.driver.run()
    found = look(totals)
    assert found.problems == []
    assert [(s.task.group, s.phase, s.worker, s.seq, s.lag) for s in found.tasks] == [
        ("rows", TaskPhase.LIVE, "test", 1, 0)
    ] * 2
    assert sum(s.positions["amounts"] for s in found.tasks) == 6
    assert {s.database for s in found.tasks} == {"postgresql://db.example:5432/shop"}
    assert "s3cret" not in str(found)


def test_status_says_that_a_database_is_away_and_that_it_is_back() -> None:
    """The worker knows the reason, and the operator looks for it in the status."""
    totals = Totals(partitions=2)
    totals.send(1)
    totals.driver.run()
    totals.database.away = AWAY
    totals.send(2)
    for _ in range(100):
        totals.driver.step()
        totals.driver.clock.advance(0.02)
    found = look(totals)
    assert {s.phase for s in found.tasks} == {TaskPhase.LIVE}
    problem = next(problem for problem in found.problems if "is unreachable" in problem.text)
    assert problem.text.startswith(
        "totals/rows/0, totals/rows/1: the database postgresql://db.example:5432/shop"
    )
    totals.database.away = None
    totals.driver.run()
    assert look(totals).problems == []


def handlers_beside(totals: Totals) -> Topic[str, int | None]:
    """A group of handlers of the same app, and what it writes."""
    copy = totals.app.topic("copy", key=str, value=int | None)
    totals.driver.create_topics()
    totals.app.handler(totals.amounts)(lambda event, ctx: ctx.send(copy, event.key, event.value))
    return copy


def live_for(totals: Totals, seconds: float) -> None:
    for _ in range(int(seconds / 0.05)):
        totals.driver.step()
        totals.driver.clock.advance(0.05)


@pytest.mark.parametrize("before", [False, True], ids=["first-start", "restart"])
def test_a_worker_that_starts_while_a_database_is_away_runs_the_other_groups_and_waits_for_it(
    before: bool,
) -> None:
    """A database that is restarted must not take everything else of the app with it."""
    totals = Totals(partitions=2)
    copy = handlers_beside(totals)
    if before:
        totals.send(1)
        totals.driver.run()
        totals.driver.restart()
    totals.database.away = AWAY
    totals.send(2, 3)
    live_for(totals, 8.0)
    assert [event.value for event in totals.driver.outputs(copy)][-2:] == [2, 3]
    assert len(totals.driver.log_events("database_unreachable")) == 1
    problem = next(p for p in look(totals).problems if "has not started" in p.text)
    assert problem.text.startswith("group totals/rows has not started on test: the database postgresql://db.")
    assert not totals.driver.log_events("task_restarting")
    totals.database.away = None
    live_for(totals, 8.0)
    totals.driver.run()
    assert len(totals.driver.log_events("database_reachable")) == 1
    assert look(totals).problems == []
    totals.check()


def test_a_worker_that_waits_for_its_database_stops_when_it_is_told_to() -> None:
    """Nothing is open, so nothing keeps it."""
    totals = Totals()
    totals.database.away = AWAY
    totals.send(1)
    totals.driver.step()
    totals.driver.stop()
    totals.database.away = None
    totals.driver.restart()
    totals.driver.run()
    totals.check()


def test_a_database_without_access_is_refused_only_at_the_start() -> None:
    """A wrong password needs the operator; one that is changed during operation will be corrected."""
    totals = Totals()
    refused = SinkUnreachableError("password authentication failed", hint="correct the DSN", refused=True)
    totals.database.away = refused
    with pytest.raises(ConfigError, match="password authentication failed"):
        totals.driver.run()
    totals.driver.restart()
    totals.database.away = AWAY
    totals.send(1)
    totals.driver.step()
    totals.database.away = refused
    live_for(totals, 30.0)
    assert "password" in look(totals).problems[0].text
    assert any(
        "password" in str(said["message"]) for said in totals.driver.log_events("database_unreachable")
    )
    totals.database.away = None
    live_for(totals, 8.0)
    totals.driver.run()
    totals.check()


def test_a_table_that_is_missing_when_the_database_comes_back_fails_its_tasks_alone() -> None:
    """The handlers have started before, and continue."""
    totals = Totals()
    copy = handlers_beside(totals)
    totals.database.away = AWAY
    totals.send(1)
    totals.driver.step()
    totals.database.away = None
    totals.database.shapes["ledger"] = TableShape(("another",), (), None, lacks=["INSERT"])
    totals.send(2)
    live_for(totals, 8.0)
    [failed] = totals.driver.log_events("task_failed")
    assert "ledger" in str(failed["message"])
    assert [event.value for event in totals.driver.outputs(copy)] == [1, 2]


def test_a_topic_that_only_a_sink_reads_has_a_reader() -> None:
    """So that `pipeline topics apply` does not give it more partitions."""
    totals = Totals.begun()
    totals.driver.clock.advance(4.0)
    totals.driver.run()
    cluster, reader = MemoryCluster(totals.driver.broker), MemoryJournalReader(totals.driver.broker)
    found = readers_of(["amounts"], cluster.topics(), cluster, reader)
    assert [str(each.group) for each in found["amounts"]] == [str(totals.task.group_id)]
