"""A database that is unreachable: its group waits, other groups continue, and the status says so."""

from __future__ import annotations

import pytest

from pipeline import Topic
from pipeline.errors import (
    ConfigError,
    SinkUnreachableError,
    UnreachableError,
)
from pipeline.ports.databases import TableShape
from pipeline.runtime.status import TaskPhase
from tests.support.sinks.totals import Totals

AWAY = SinkUnreachableError("the server is gone")


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


def test_status_shows_sink_tasks_with_owner_epoch_position_and_lag() -> None:
    """The status is read from Kafka only: the operator may not be able to reach the database."""
    totals = Totals(partitions=2)
    for n in range(6):
        totals.send(n, key=f"k{n}")
    totals.driver.run()
    totals.driver.clock.advance(4.0)
    totals.driver.run()
    found = totals.status()
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
    found = totals.status()
    assert {s.phase for s in found.tasks} == {TaskPhase.LIVE}
    problem = next(problem for problem in found.problems if "is unreachable" in problem.text)
    assert problem.text.startswith(
        "totals/rows/0, totals/rows/1: the database postgresql://db.example:5432/shop"
    )
    totals.database.away = None
    totals.driver.run()
    assert totals.status().problems == []


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
    problem = next(p for p in totals.status().problems if "has not started" in p.text)
    assert problem.text.startswith("group totals/rows has not started on test: the database postgresql://db.")
    assert not totals.driver.log_events("task_restarting")
    totals.database.away = None
    live_for(totals, 8.0)
    totals.driver.run()
    assert len(totals.driver.log_events("database_reachable")) == 1
    assert totals.status().problems == []
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
    assert "password" in totals.status().problems[0].text
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
