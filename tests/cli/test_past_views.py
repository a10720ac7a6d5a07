"""What the commands for the past print, from apps in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.flights.app import totals
from pipeline.api.app import DeclaredApp
from pipeline.api.declarations import declared_table
from pipeline.app import declared_app
from pipeline.cli.debug import print_run, run_document
from pipeline.cli.past import PastPlace
from pipeline.cli.table_rows import past_rows, print_history, readable_value
from pipeline.config import Settings
from pipeline.errors import InputError
from pipeline.ops.history.row_changes import StoredValue
from pipeline.testing import TestDriver
from tests.ops.history.test_debugging import Numbers, _run
from tests.support.ops.past_flights import PastFlights, reading

Captured = pytest.CaptureFixture[str]


def _place(driver: TestDriver) -> PastPlace:
    app: DeclaredApp = declared_app(driver.app)
    return PastPlace("flights.app:app", app, reading(driver), Settings())


def _history(rig: PastFlights, key: str, limit: int = 0, *, as_json: bool = False) -> None:
    print_history(_place(rig.driver), declared_table(totals), "totals", key, None, limit, json=as_json)


def test_a_history_has_a_line_for_each_change(capsys: Captured) -> None:
    """The values follow each other: the new one of a line is the old one of the next."""
    rig = PastFlights()
    _history(rig, "AA", as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["old"] is None
    assert [row["old"] for row in rows[1:]] == [row["new"] for row in rows[:-1]]
    _history(rig, "AA", limit=2)
    out, said = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "4 older changes not shown" in said


def test_a_history_marks_what_the_journal_no_longer_has(capsys: Captured) -> None:
    """A question mark is not a missing row, and the message names the command that shows the value."""
    rig = PastFlights(checkpoints=True)
    _history(rig, "AA")
    out, said = capsys.readouterr()
    assert "?" in out.splitlines()[1].split()
    assert "older changes are not in the journal" in said
    assert "pipeline table show totals AA --app flights.app:app --task" in said


def test_a_reset_is_named_in_a_history(capsys: Captured) -> None:
    """The row disappeared, and no input explains it."""
    rig = PastFlights()
    rig.driver.reset("latest")
    rig.driver.run()
    _history(rig, "AA")
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert "reset" in last
    assert last[-1] == "-"


def test_a_key_without_changes_is_an_error() -> None:
    """An empty table would look like a row that never changed."""
    with pytest.raises(InputError, match="no journal entry changed key 'ZZ'"):
        _history(PastFlights(), "ZZ")


def test_past_rows_name_their_task_and_entry(capsys: Captured) -> None:
    """With a time, each task is at another entry."""
    rig = PastFlights()
    rows = list(past_rows(_place(rig.driver), declared_table(totals), "2100-01-01T00:00:00Z", None, None))
    assert {row.key: row.value for row in rows} == rig.driver.table(totals)
    assert {row.where["task"] for row in rows} == {0, 1}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("the oldest possible is entry 1 of" in line for line in said)


def test_a_value_of_an_earlier_type_is_shown_without_it() -> None:
    """The journal keeps it, although the type of today would refuse it."""
    table = declared_table(totals)
    earlier = StoredValue(b'{"late":3}', f"{table.key_fingerprint}json:other")
    assert readable_value(table, earlier) == {"late": 3}
    assert readable_value(table, StoredValue(None, earlier.schema)) is None


def _printed(run: Any, capsys: Captured) -> str:
    print_run(run)
    return capsys.readouterr().out


def test_a_write_is_shown_beside_the_committed_one(capsys: Captured) -> None:
    """A value that a later record wrote again is not reported as a difference of the code."""
    app = Numbers()
    app.commit(1, 2)
    first, last = _run(app.driver, "numbers", 0), _run(app.driver, "numbers", 1)
    assert "2 attempts" not in _printed(first, capsys)
    assert "3 (perhaps by one of 1 later record)" in _printed(first, capsys)
    assert "sums[0] offset 0: the same" in _printed(first, capsys)
    assert "perhaps" not in _printed(last, capsys)
    document = run_document(first)
    assert document["accesses"][1]["committed"] == "differs"
    assert document["accesses"][1]["committed_value"] == 3
    assert run_document(last)["accesses"][1]["committed"] == "same"


def test_a_failed_run_says_that_its_writes_were_undone(capsys: Captured) -> None:
    """Otherwise a reader takes them for a part of the state."""
    app = Numbers(retries=1)
    app.commit(13)
    shown = _printed(_run(app.driver, "numbers", 0), capsys)
    assert "failed and became a dead letter, 2 attempts" in shown
    assert shown.count("undone") == 2
    assert "dead letter 0:0: the same error" in shown
    assert 'raise ValueError("13 is not a number that we add")' in shown


def test_a_changed_handler_shows_what_was_not_committed(capsys: Captured) -> None:
    """A fix is tried on the record that failed: its new write and output are marked."""
    app = Numbers()
    app.commit(13)
    app.fails = False
    shown = _printed(_run(app.driver, "numbers", 0), capsys)
    assert "not written" in shown
    assert "not found" in shown
    assert "dead letter 0:0: ValueError: 13 is not a number that we add" in shown
