"""The past of tasks with several partitions: a key may have a row in each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from pipeline.api.declarations import declared_table
from pipeline.api.table import table_prefix
from pipeline.app import declared_app
from pipeline.cli.debug import run_document
from pipeline.cli.past import PastPlace
from pipeline.cli.table import _print
from pipeline.cli.table_rows import past_rows, print_history
from pipeline.config import Settings
from pipeline.ops.history.debugging import debug_record, prepare
from pipeline.ops.history.row_changes import RowHistory, row_histories
from pipeline.testing.memory_store import MemoryStores
from tests.support.ops.past_flights import reading
from tests.support.runtime.several import BAD, PARTITIONS, TASKS, Several

Captured = pytest.CaptureFixture[str]
LATER = "2100-01-01T00:00:00Z"


def _counted() -> Several:
    """Key `a` was counted once in each partition, and twice more in partitions 2 and 5, beside others in 4."""
    several = Several.begun()
    for _ in range(2):
        several.send("a", partitions=[2, 5])
        several.send("b", partitions=[4, 4])
        several.driver.run()
    return several


def _histories(several: Several, number: int) -> Sequence[RowHistory]:
    key = table_prefix("counts") + b"a"
    return row_histories(several.task(number), "counts", key, reading(several.driver))


def _values(history: RowHistory) -> list[tuple[bytes | None, bytes | None]]:
    return [(c.old.data if c.old is not None else b"?", c.new.data) for c in history.changes]


def test_each_partition_has_a_history_of_its_own() -> None:
    """The values of one partition would otherwise look like changes of the other one's row."""
    several = _counted()
    one, two, three = _histories(several, 0)
    assert [history.partition for history in (one, two, three)] == [0, 2, 4]
    assert _values(one) == _values(three) == [(None, b"1")]
    assert _values(two) == [(None, b"1"), (b"1", b"2"), (b"2", b"3")]
    assert all(history.complete for history in (one, two, three))
    assert [two.moved(change) for change in two.changes] == [{"numbers": (n, n + 1)} for n in range(3)]


def test_a_reset_of_one_partition_ends_only_its_rows() -> None:
    """The rows of the others are still there."""
    several = Several.begun()
    several.driver.reset("latest", partition=2)
    one, two, three = _histories(several, 0)
    assert _values(one) == _values(three) == [(None, b"1")]
    assert _values(two) == [(None, b"1"), (b"1", None)]
    several.driver.reset("latest")
    assert [_values(found)[-1] for found in _histories(several, 0)] == [(b"1", None)] * 3


@pytest.mark.parametrize("tasks", [None, PARTITIONS])
def test_one_partition_for_each_task_has_one_history(tasks: int | None) -> None:
    """In both formats, and without a number of partitions to choose from."""
    (found,) = _histories(Several.begun(tasks=tasks), 4)
    assert (found.partition, list(found.partitions), _values(found)) == (4, [4], [(None, b"1")])


def _place(several: Several) -> PastPlace:
    return PastPlace("several.app:app", declared_app(several.app), reading(several.driver), Settings())


def _printed(several: Several, capsys: Captured, *, as_json: bool) -> list[str]:
    counts = declared_table(several.counts)
    print_history(_place(several), counts, "counts", "a", None, 0, json=as_json)
    return capsys.readouterr().out.splitlines()


def test_the_history_of_a_key_names_the_partitions(capsys: Captured) -> None:
    """The row of a partition is read by the handlers of its records only."""
    several = _counted()
    lines = _printed(several, capsys, as_json=False)
    assert lines[0].split()[:3] == ["task", "partition", "seq"]
    assert [line.split()[:2] for line in lines[1:]] == [
        [str(p % 2), str(p)] for p in (0, 2, 2, 2, 4, 1, 3, 5, 5, 5)
    ]
    rows = [json.loads(line) for line in _printed(several, capsys, as_json=True)]
    assert [(row["task"], row["partition"]) for row in rows if row["new"] == 3] == [(0, 2), (1, 5)]
    assert rows[0]["partitions"] == [0, 2, 4]
    assert rows[0]["positions"].keys() >= {"numbers[0]", "numbers[2]", "numbers[4]"}


def test_the_history_of_a_key_leaves_out_single_partitions(capsys: Captured) -> None:
    """Its number is that of the task."""
    lines = _printed(Several.begun(tasks=None), capsys, as_json=False)
    assert lines[0].split()[:2] == ["task", "seq"]


def test_rows_of_the_past_name_their_partitions(capsys: Captured) -> None:
    """Two rows of one key in one task would look like a mistake."""
    several = _counted()
    counts = declared_table(several.counts)
    rows = list(past_rows(_place(several), counts, LATER, None, "a"))
    assert {row.where["partition"]: row.value for row in rows} == {
        partition: 3 if partition in {2, 5} else 1 for partition in range(PARTITIONS)
    }
    capsys.readouterr()
    _print(iter(rows), 0, None, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "partition", "key", "value"]
    assert lines[1:] == [
        f"   {p % 2}          {p}  a    {3 if p in {2, 5} else 1}" for p in (0, 2, 4, 1, 3, 5)
    ]
    _print(iter(rows[:1]), 0, None, json=False)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "   0          0  a    1"
    ]  # not by the rows that are shown


def test_rows_of_single_partitions_name_only_their_tasks(capsys: Captured) -> None:
    """The number of a partition is that of its task."""
    several = Several.begun(tasks=None)
    _print(past_rows(_place(several), declared_table(several.counts), LATER, None, "a"), 0, None, json=False)
    assert capsys.readouterr().out.splitlines()[0].split() == ["task", "key", "value"]


@pytest.mark.parametrize("tasks", [None, 1, TASKS])
def test_a_record_of_any_partition_is_run_again(tasks: int | None) -> None:
    """Its rows are those of its partition, and the records of the others are not run."""
    several = Several(tasks=tasks)
    for _ in range(2):
        several.send("a")
        several.send("b", partitions=[2])
    several.send("a", partitions=[2])
    several.send("a", BAD, [4])
    several.driver.run()
    app, environment = declared_app(several.app), reading(several.driver)
    for partition, offset, wanted in ((2, 4, 3), (4, 1, 2), (5, 0, 1)):
        task = several.task(partition % (tasks or PARTITIONS))
        prepared = prepare(app, app.groups[0], task, "numbers", offset, environment, partition)
        run = debug_record(prepared, environment, MemoryStores())
        document = run_document(run)
        read, write = document["accesses"]
        assert (run.outcome, read["value"], write["value"]) == ("handled", wanted - 1 or None, wanted)
        assert write["committed"] == (
            "differs" if partition == 5 else "same"
        )  # a later record wrote it again
        assert document["commit"]["records_before"] == offset
        several_of_task = tasks is not None
        assert document["commit"]["inputs"].keys() == {
            f"numbers[{p}]" if several_of_task else "numbers"
            for p in range(PARTITIONS)
            if p == partition or (several_of_task and p % (tasks or 1) == task.number)
        }
        [output] = run.outputs
        assert output.committed is not None
        assert output.committed.equal
    task = several.task(4 % (tasks or PARTITIONS))
    run = debug_record(
        prepare(app, app.groups[0], task, "numbers", 2, environment, 4), environment, MemoryStores()
    )
    assert run.letter is not None
