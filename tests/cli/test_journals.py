"""An app is named to commands that read Kafka alone as it is to those that run its code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.cli.journal import _cells, _entries
from pipeline.cli.lookup import app_named
from pipeline.errors import ConfigError
from pipeline.ops.history.record_commits import inputs_in
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.several import Several


@pytest.fixture(autouse=True)
def delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the user's, as they are found from the working directory."""
    (tmp_path / "delays_of_a_user.py").write_text("from pipeline import App\napp = App('flight-delays')\n")
    (tmp_path / "broken_by_a_user.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_name_and_module_app_mean_the_same_app() -> None:
    """A user who has started `pipeline worker delays:app` gives the same argument to `status`."""
    assert app_named("flight-delays") == app_named("delays_of_a_user:app") == "flight-delays"


@pytest.mark.parametrize("given", ["no_such_module:app", "broken_by_a_user:app", "delays_of_a_user:other"])
def test_code_that_cannot_be_had_here_is_not_needed(given: str) -> None:
    """The operator's machine may not have the packages that the app imports."""
    with pytest.raises(ConfigError) as error:
        app_named(given)
    assert error.value.hint is not None
    assert "or give the app's name: this command does not need its code" in error.value.hint


def test_what_can_be_neither_is_refused() -> None:
    """A slash would make the name of another topic."""
    with pytest.raises(ConfigError, match="flight/delays"):
        app_named("flight/delays")


def _shown(several: Several, number: int) -> list[dict[str, object]]:
    reader, task = MemoryJournalReader(several.driver.broker), several.task(number)
    return _entries(reader, task, inputs_in(task, MemoryCluster(several.driver.broker)), 0)


def test_positions_are_shown_by_partition_where_a_task_has_several() -> None:
    """`numbers/1` is the name of an input inside a journal, and looks like partition 1."""
    several = Several.begun()
    rows = _shown(several, 1)
    assert [row["partitions"] for row in rows] == [[1, 3, 5]] * len(rows)
    assert rows[-1]["positions"] == {
        f"{topic}[{p}]": at for topic, at in [("numbers", 1), ("several.main.replays", 0)] for p in (1, 3, 5)
    }
    assert _cells(rows[-1], several.task(1).group_id)[6] == "numbers[1] 1, numbers[3] 1, numbers[5] 1"


def test_positions_are_shown_by_topic_where_a_task_has_one_partition() -> None:
    """The form of earlier releases, which scripts read."""
    several = Several.begun(tasks=None)
    row = _shown(several, 4)[-1]
    assert (row["partitions"], row["positions"]) == ([4], {"numbers": 1, "several.main.replays": 0})
    assert _cells(row, several.task(4).group_id)[6] == "numbers 1"


def test_a_reset_of_one_partition_says_which() -> None:
    """Otherwise the entry looks as if all rows of the task were deleted."""
    several = Several.begun()
    several.driver.reset("earliest", partition=4)
    row = _shown(several, 0)[-1]
    assert (row["kind"], row["reset_partitions"]) == ("reset", [4])
    assert _cells(row, several.task(0).group_id)[3] == "reset of partition 4"
