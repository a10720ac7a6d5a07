"""`table show` and `journal show`, asked for what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import App
from pipeline.api.declarations import declared_table
from pipeline.api.table import table_prefix
from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, encode_position
from pipeline.rocksdb.rocks import RocksStores
from tests.cli.conftest import Run

PROGRAM = """
from pipeline import App
app = App("delays")
flights = app.topic("flights", key=str, value=int)
totals = app.table("totals", key=str, value=int)

@app.handler(flights)
def handle(event, ctx):
    pass
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What a worker has left behind: one row."""
    (tmp_path / "delays.py").write_text(PROGRAM)
    totals = App("delays").table("totals", key=str, value=int)
    directory = tmp_path / ".pipeline" / "state"
    store = RocksStores(directory, 8 << 20).open(TaskId("delays", "main", 0))
    identity = Identity("cluster", "murmur2_random", {}, {"totals": declared_table(totals).fingerprint}, "")
    store.apply(
        {table_prefix("totals") + b"AA": b"7"},
        encode_position(AppliedPosition(2, 5, 6, bytes(8), {}, identity)),
    )
    store.close()
    return directory


SHOW = ("table", "show", "totals")
APP = ("--app", "delays:app")


def test_a_row_is_shown_and_one_that_is_not_there_is_an_error(pipeline: Run, state: Path) -> None:
    """A script that asks for a key must not take nothing for an answer."""
    assert json.loads(pipeline(*SHOW, "AA", *APP, "--json", code=0).stdout)["value"] == 7
    for form in ((), ("--json",)):
        missing = pipeline(*SHOW, "BB", *APP, *form, code=1)
        assert missing.stdout == ""
        assert "table totals has no key 'BB'" in missing.stderr


def test_rows_are_shown_without_kafka_and_their_origin_is_named(pipeline: Run, state: Path) -> None:
    """Rows are needed most in an outage, when it is unknown whether they are current."""
    shown = pipeline(*SHOW, *APP, "--json", "--kafka", "127.0.0.1:1", code=0)
    assert [json.loads(line)["key"] for line in shown.stdout.splitlines()] == ["AA"]
    assert shown.stderr.splitlines() == [
        "read from .pipeline/state: task 0 (entry 2) of delays/main",
        "unknown whether these rows are current and complete: no Kafka at 127.0.0.1:1 (connection refused)",
    ]


def test_a_wrong_state_directory_is_reported(pipeline: Run, state: Path) -> None:
    """The command was run somewhere else than the worker, most often."""
    absent = pipeline(*SHOW, *APP, "--state-dir", "elsewhere", code=1).stderr
    assert "the state directory elsewhere does not exist" in absent
    assert "run this on the worker's machine" in absent
    file = pipeline(*SHOW, *APP, "--state-dir", "delays.py", code=1).stderr
    assert "the state directory delays.py is not a directory" in file


@pytest.mark.parametrize(
    "words",
    [
        (*SHOW, *APP, "--max", "-5"),
        ("journal", "show", "delays", "--last", "-3"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(pipeline: Run, state: Path, words: tuple[str, ...]) -> None:
    """Taken for `all`, -5 would be a surprise on a large table."""
    assert f"error: {words[-2]} must be at least" in pipeline(*words, code=2).stderr
