"""Where a sink group starts to read: positions in the database, resets, backups and replaced topics."""

from __future__ import annotations

import pytest

from pipeline import Postgres
from pipeline.api.group import group_view
from pipeline.app import declared_app
from pipeline.config import WorkerSettings
from pipeline.errors import (
    ConfigError,
    FatalTaskError,
)
from pipeline.runtime.reset import plan_reset, start_at
from tests.support.sinks.totals import DSN, Totals, entry


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
    group_view(declared_app(totals.app).groups[0]).sink(more, Postgres(DSN, "more", mode="append", row=entry))
    totals.driver.send(more, "b", 7)
    totals.driver.run()
    totals.check()
    assert [row["amount"] for row in totals.database.rows("more")] == [7]
