"""The history of a row: each change with its values, back to the journal's first entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.flights.app import Delay, by_carrier, totals
from pipeline import App, Context, Event, Topic
from pipeline.api.declarations import declared_table
from pipeline.api.table import table_prefix
from pipeline.core.names import TaskId
from pipeline.core.records import partition_of
from pipeline.ops.history.past_states import AtEntry, restore_at
from pipeline.ops.history.row_changes import RowHistory, StoredValue, row_histories
from pipeline.testing import TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.runtime.restore.test_stale_reads import Nth
from tests.support.ops.past_flights import CARRIERS, PastFlights

NONE = StoredValue(None)


def _history(rig: PastFlights, carrier: str, newest: int | None = None) -> RowHistory:
    task = rig.task(partition_of(carrier.encode(), 2))
    (found,) = row_histories(task, totals.name, _key(carrier), rig.reading_environment(), newest)
    return found


def _key(carrier: str) -> bytes:
    return table_prefix(totals.name) + (declared_table(totals).key.encode(carrier) or b"")


def _delay(value: StoredValue | None) -> Delay:
    assert value is not None
    read: Delay = declared_table(totals).value.decode(value.data) if value.data is not None else Delay()
    return read


def test_the_history_of_a_row_sums_to_its_value() -> None:
    """No commit is missing, and none is there twice: the differences add up to the live value."""
    rig = PastFlights()
    for carrier in CARRIERS:
        history = _history(rig, carrier)
        assert history.complete
        assert history.changes[0].old == NONE
        flights = sum(_delay(c.new).flights - _delay(c.old).flights for c in history.changes)
        minutes = sum(_delay(c.new).minutes - _delay(c.old).minutes for c in history.changes)
        live = rig.driver.table(totals)[carrier]
        assert (flights, minutes) == (live.flights, live.minutes)
        assert len(history.changes) == 6


def test_each_change_names_the_input_that_made_it() -> None:
    """The records of a carrier in the offsets of a change are as many as the flights that it added."""
    rig = PastFlights()
    records = rig.driver.broker.records(by_carrier.name)
    history = _history(rig, "AA")
    for change in history.changes:
        first, after = history.moved(change)[by_carrier.name]
        made = [r for r in records if r.key() == b"AA" and first <= r.offset() < after]
        assert len(made) == _delay(change.new).flights - _delay(change.old).flights
        assert change.entry.entry.owner == "w1"


def test_a_truncated_journal_begins_with_an_unknown_value() -> None:
    """An unknown value is not reported as a missing row. The oldest state has it, and the sum is then exact."""
    rig = PastFlights(checkpoints=True)
    history = _history(rig, "AA")
    first = history.first
    assert not history.complete
    assert first is not None
    change = history.changes[0]
    assert change.old is None
    oldest = restore_at(history.task, AtEntry(first.entry.seq), rig.reading_environment(), MemoryStores())
    start = StoredValue(oldest.store.get(_key("AA")))
    added = sum(
        _delay(c.new).flights - _delay(start if c.old is None else c.old).flights for c in history.changes
    )
    assert _delay(start).flights + added == rig.driver.table(totals)["AA"].flights


def test_only_the_newest_changes_are_kept_if_asked() -> None:
    """A row that changes in each commit has too many changes for a screen; their number is still told."""
    rig = PastFlights()
    history = _history(rig, "AA", newest=2)
    assert history.changes == _history(rig, "AA").changes[-2:]
    assert history.total == 6


def test_a_reset_is_a_change_of_each_row() -> None:
    """It removed the row, although the entry does not list its key."""
    rig = PastFlights()
    rig.driver.reset("earliest")
    rig.driver.run()
    history = _history(rig, "AA")
    kinds = [change.entry.entry.kind.name for change in history.changes]
    at = kinds.index("RESET")
    assert history.changes[at].new.data is None
    assert _delay(history.changes[-1].new) == rig.driver.table(totals)["AA"]


def test_a_write_of_the_same_value_is_not_a_change() -> None:
    """Otherwise the commits that changed the row would be hard to find among those that did not. A delete is one."""
    app = App("levels")
    readings = app.topic("readings", key=str, value=int)
    levels = app.table("levels", key=str, value=int)

    @app.handler(readings)
    def keep(event: Event[str, int], ctx: Context) -> None:
        table = ctx.table(levels)
        if event.value:
            table[event.key] = event.value
        elif event.key in table:
            del table[event.key]

    driver = TestDriver(app)
    for value in (1, 1, 2, 0, 0, 2):
        driver.send(readings, "a", value)
        driver.run()
    key = table_prefix("levels") + b"a"
    (history,) = row_histories(TaskId("levels", "main", 0), "levels", key, driver.environment())
    assert [change.new.data for change in history.changes] == [b"1", b"2", None, b"2"]


def test_each_value_has_the_schema_of_its_time() -> None:
    """After an upgrade, older values cannot be read with the types of today."""

    def made(
        value: type[int] | type[str], upgrade: Callable[[Any], Any] | None
    ) -> tuple[App, Topic[str, int]]:
        app = App("levels")
        readings = app.topic("readings", key=str, value=int)
        levels = app.table("levels", key=str, value=value, upgrade=upgrade)

        @app.handler(readings)
        def keep(event: Event[str, int], ctx: Context) -> None:
            ctx.table(levels)[event.key] = value(event.value)

        return app, readings

    app, readings = made(int, None)
    driver = TestDriver(app)
    driver.send(readings, "a", 1)
    driver.run()
    driver.restart(app=made(str, str)[0])
    driver.run()
    key = table_prefix("levels") + b"a"
    (history,) = row_histories(TaskId("levels", "main", 0), "levels", key, driver.environment())
    first, upgraded = history.changes
    assert upgraded.old == first.new
    assert upgraded.entry.entry.kind.name == "ACQUIRE"
    assert upgraded.new.schema != first.new.schema


@pytest.mark.parametrize("nth", range(3))
def test_a_stale_leader_does_not_hide_a_change(nth: int) -> None:
    """It would end the history before the newest commits."""
    rig = PastFlights()
    stale = rig.driver.broker.add_stale_leader(lambda: False)
    rig.fly()
    stale.answers = Nth(nth)
    history = _history(rig, "AA")
    assert _delay(history.changes[-1].new) == rig.driver.table(totals)["AA"]
