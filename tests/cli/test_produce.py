"""`pipeline produce`, before it asks Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import assemble
from pipeline.errors import ConfigError, InputError, UnreachableError
from tests.cli.conftest import Run


def test_what_standard_input_lacks_is_asked_for_at_once(pipeline: Run) -> None:
    """One refusal after the other costs a try each."""
    refused = " ".join(pipeline("produce", "flights", "-", code=2, stdin="a\n1\n").stderr.split())
    assert "--format csv or --format jsonl or --format parquet, and --name" in refused
    named = pipeline("produce", "flights", "-", "--name", "x", code=2, stdin="a\n1\n").stderr
    assert "--format csv" in named
    assert "--name, by" not in named


def test_a_file_whose_name_says_nothing_needs_a_format_only(pipeline: Run, tmp_path: Path) -> None:
    """Its name is the load's."""
    (tmp_path / "rows.dat").write_text("a\n1\n")
    refused = pipeline("produce", "flights", "rows.dat", code=2).stderr
    assert "--format csv" in refused
    assert "--name, by" not in refused


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("k\n1\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.usefixtures("two_files")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv", "--resume-only", "--restart"], "give one of them"),
        (["a.csv", "b.jsonl", "--format", "csv"], "a list of files is not enough: give --name"),
        (["-", "--format", "csv"], "give --name"),
        (["-", "--name", "n"], "give --format"),
        (["-", "--name", "n", "--format", "parquet"], "cannot be read from a pipe"),
        (["a.csv", "--name", "a\nb"], "is not a valid name of a load"),
        ([], "FILE"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_to_give(arguments: list[str], said: str) -> None:
    """A script must be able to tell a wrong call from a load that failed."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(assemble("produce"), ["produce", "t", *arguments])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())


@pytest.mark.usefixtures("two_files")
def test_files_that_do_not_belong_together_are_refused() -> None:
    """A load has one format, and its rows become records in one way."""
    result = CliRunner().invoke(assemble("produce"), ["produce", "t", "a.csv", "b.jsonl", "--name", "n"])
    assert isinstance(result.exception, InputError)
    assert "all files of a load must have one format" in result.exception.message


def test_a_topic_that_is_declared_with_ids_is_not_loaded_without(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before Kafka is used; otherwise only readers of the topic would notice."""
    monkeypatch.setenv("PIPELINE_KAFKA_STARTUP_WAIT_S", "0")
    (two_files / "topics").mkdir()
    declaration = "name: t\npartitions: 1\nowner: me\nkey: none\nvalue: none\nid: the payment's number\n"
    (two_files / "topics" / "t.yaml").write_text(declaration)
    result = CliRunner().invoke(assemble("produce"), ["produce", "t", "a.csv", "--kafka", "127.0.0.1:1"])
    assert isinstance(result.exception, ConfigError)
    assert "events of topic t have an id (the payment's number)" in result.exception.message
    given = CliRunner().invoke(
        assemble("produce"), ["produce", "t", "a.csv", "--id", "k", "--kafka", "127.0.0.1:1"]
    )
    assert isinstance(given.exception, UnreachableError)
