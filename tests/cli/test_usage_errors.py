"""A wrong command line is answered like every other error: what is wrong, the next step, and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pipeline.cli.main import run

Refused = Callable[[str], str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs `pipeline LINE` in this process, which must end with exit code 2; what it writes to standard error."""

    def error_of(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pipeline", *line.split()])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err

    return error_of


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        (
            "wroker delays:app",
            "pipeline has no command 'wroker'; did you mean 'worker'?",
            "see pipeline --help",
        ),
        ("topics zzz", "pipeline topics has no command 'zzz'", "see pipeline topics --help"),
        (
            "worker delays:app --proceses 2",
            "pipeline worker has no option --proceses; did you mean '--processes'?",
            "see pipeline worker --help",
        ),
        ("--verison", "pipeline has no option --verison; did you mean '--version'?", "see pipeline --help"),
        ("status flights --lsat", "pipeline status has no option --lsat", "see pipeline status --help"),
        (
            "journal show flights --lsat 3",
            "pipeline journal show has no option --lsat; did you mean '--last'?",
            "see pipeline journal show --help",
        ),
        ("worker a:b -x", "pipeline worker has no option -x", "see pipeline worker --help"),
        (
            "worker",
            "pipeline worker requires MODULE:APP",
            "for example: pipeline worker delays:app --processes 4",
        ),
        (
            "ring simulate --workers 2",
            "pipeline ring simulate requires --tasks N",
            "for example: pipeline ring simulate --workers 4 --tasks 64 --join 1",
        ),
        ("worker a:b c:d", "there are too many arguments: c:d", "see pipeline worker --help"),
        ("worker a:b --processes", "--processes requires a value", "see pipeline worker --help"),
        ("worker a:b --processes 0", "--processes must be at least 1", "see pipeline worker --help"),
        ("produce t f --batch 200000", "--batch must be at most 100000", "see pipeline produce --help"),
        ("worker a:b --processes x", "--processes is not a whole number", "see pipeline worker --help"),
        (
            "worker a:b --log-level loud",
            "--log-level: 'loud' is not one of 'debug', 'info', 'warning', 'error'",
            "see pipeline worker --help",
        ),
        (
            "consume t --from end",
            "--from end prints only new records, so it requires --follow",
            "see pipeline consume --help",
        ),
        (
            "journal show flights --task main/x",
            "--task: 'main/x' is not a task: write its number, or GROUP/N as in reports: 1 or main/1",
            "see pipeline journal show --help",
        ),
        (
            "journal show flights --task -1",
            "--task: '-1' is not a task: write its number, or GROUP/N as in reports: 1 or main/1",
            "see pipeline journal show --help",
        ),
        ("drill report shw", "pipeline drill report has no command 'shw'; did you mean 'show'?", "see"),
    ],
)
def test_a_wrong_command_line_is_one_error_with_a_hint(
    refused: Refused, line: str, error: str, hint: str
) -> None:
    """A usage line and a box of another style would hide what is wrong."""
    first, second = refused(line).splitlines()
    assert first == f"error: {error}"
    assert second.startswith(f"  -> {hint}")


@pytest.mark.parametrize("line", ["", "topics", "drill report"])
def test_a_group_without_a_command_shows_its_help(refused: Refused, line: str) -> None:
    """A reader finds the commands by typing less, not more."""
    assert refused(line).startswith(f"Usage: {f'pipeline {line}'.strip()} [OPTIONS]")
