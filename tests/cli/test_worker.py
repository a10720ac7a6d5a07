"""`pipeline worker` before and around its work: options, help, and the line on a terminal."""

from __future__ import annotations

import pytest

from pipeline import App
from pipeline.app import declared_app
from pipeline.cli.worker import ProgressLine
from pipeline.errors import ConfigError
from pipeline.runtime.metrics.figures import WorkerCounters
from tests.cli.conftest import Run


def test_a_log_level_that_does_not_exist_is_refused_with_the_choices(pipeline: Run) -> None:
    """Taken for another level, it would hide what the operator wanted to see."""
    refused = pipeline("worker", "delays:app", "--log-level", "loud", code=2)
    assert "'debug', 'info', 'warning', 'error'" in refused.stderr


def test_the_help_says_what_is_taken_where_nothing_is_given(pipeline: Run) -> None:
    """The state directory above all: `table show` must find it."""
    shown = " ".join(pipeline("worker", "--help", code=0).stdout.split())
    assert "Default: .pipeline/state." in shown
    assert "Default: 100." in shown
    assert "Default: $PIPELINE_KAFKA, pipeline.toml" in shown


def test_the_line_on_the_terminal_is_ended_once(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that begins behind it cannot be read, and an empty line where there was none is noise."""
    line = ProgressLine()
    line.end()
    assert capsys.readouterr().err == ""
    line(WorkerCounters(5, 4, 1, 0, 0, 2, 0, 0, 0))
    line.end()
    line.end()
    shown = capsys.readouterr().err
    assert "5 records" in shown
    assert "1 commit " in shown
    assert shown.endswith("tasks: 2 live\n")


def test_the_line_on_the_terminal_counts_duplicates(capsys: pytest.CaptureFixture[str]) -> None:
    """They have no outputs, so nothing else tells a working dedup table from a lost record."""
    line = ProgressLine()
    line(WorkerCounters(5, 4, 1, 0, 0, 2, 0, 0, 0, duplicates=1, late_duplicates=2))
    line.end()
    assert "1 duplicate dropped  2 late duplicates processed" in capsys.readouterr().err


def test_processes_that_cannot_start_end_the_command_with_their_own_message(pipeline: Run) -> None:
    """A supervisor must report why its processes end, and stop after repeated failures."""
    done = pipeline("worker", "no_such_module:app", "--processes", "2", "--worker-id", "w", code=1)
    assert "module no_such_module does not exist" in done.stderr
    assert '"event": "worker_not_restarted"' in done.stderr
    assert '"worker": "w-1"' in done.stderr


def test_settings_that_are_wrong_are_told_once_before_any_process_is_started(pipeline: Run) -> None:
    """Not by each of them, again and again."""
    refused = pipeline("worker", "delays:app", "--processes", "2", "--worker-id", "a b", code=1)
    assert refused.stderr.count("worker id 'a b-2' cannot be used") == 1
    pipeline("worker", "delays:app", "--processes", "0", code=2)
    pipeline("worker", "delays:app", "--weight", "0", code=2)


def test_a_group_that_the_app_does_not_have_is_refused_with_its_groups() -> None:
    """A mistyped name would start a worker that never gets a task."""
    shop = App("shop")
    topic = shop.topic("orders", key=str, value=int)
    shop.group("scoring").handler(topic)(lambda _event, _ctx: None)
    shop.group("empty")
    app = declared_app(shop)
    assert [group.name for group in app.only(["scoring"]).groups] == ["scoring"]
    assert app.only([]) is app
    for name in ("scorin", "empty"):
        with pytest.raises(
            ConfigError, match=f"app shop has no group '{name}' with handlers or sinks"
        ) as refused:
            app.only([name])
        assert refused.value.hint == "its groups: scoring"
