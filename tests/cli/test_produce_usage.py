"""`pipeline produce` called wrongly: told before Kafka is even looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble
from pipeline.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("k\n1\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv", "--from-checkpoint", "--restart"], "give one of them"),
        (["a.csv", "b.jsonl", "--format", "csv"], "a list of files has no name of its own"),
        (["-", "--format", "csv"], "standard input has no name of its own"),
        (["-", "--name", "n"], "does not say its format"),
        (["-", "--name", "n", "--format", "parquet"], "cannot come from a pipe"),
        (["a.csv", "--name", "a\nb"], "cannot be the name of a load"),
        ([], "FILE"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_to_give(arguments: list[str], said: str) -> None:
    """A script must be able to tell a wrong call from a load that failed."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(assemble("produce"), ["produce", "t", *arguments])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())


def test_files_that_do_not_belong_together_are_refused() -> None:
    """A load has one format, and its rows become records in one way."""
    result = CliRunner().invoke(assemble("produce"), ["produce", "t", "a.csv", "b.jsonl", "--name", "n"])
    assert isinstance(result.exception, InputError)
    assert "a load has one format" in result.exception.message
