"""`pipeline worker` before and around its work: options, help, and the line on a terminal."""

from __future__ import annotations

import pytest

from pipeline.cli.worker import _ProgressLine
from pipeline.runtime.worker import Progress
from tests.cli.conftest import Run


def test_a_log_level_that_does_not_exist_is_refused_with_the_choices(pipeline: Run) -> None:
    """Taken for another level, it would hide what the operator wanted to see."""
    refused = pipeline("worker", "delays:app", "--log-level", "loud", code=2)
    assert "'debug', 'info', 'warning', 'error'" in refused.stderr


def test_the_help_says_what_is_taken_where_nothing_is_given(pipeline: Run) -> None:
    """The state directory above all: `table show` must find it."""
    shown = pipeline("worker", "--help", code=0).stdout
    assert "Default: .pipeline/state." in shown
    assert "Default: 100." in shown
    assert "Default: $PIPELINE_KAFKA, pipeline.toml" in shown


def test_the_line_on_the_terminal_is_ended_once(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that begins behind it cannot be read, and an empty line where there was none is noise."""
    line = _ProgressLine()
    line.end()
    assert capsys.readouterr().err == ""
    line(Progress(5, 4, 1, 0, 0, 2, 0, 0, 0))
    line.end()
    line.end()
    shown = capsys.readouterr().err
    assert "5 records" in shown
    assert "1 commit " in shown
    assert shown.endswith("tasks: 2 live\n")
