"""Completion of commands and options in shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS


def _run(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("pipeline"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _bash(line: str, word: int) -> list[str]:
    return _run(_PIPELINE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(word)).split()


def test_bash_completes_the_names_of_commands() -> None:
    """The names are the part that is typed most often."""
    assert _bash("pipeline jour", 1) == ["journal"]
    assert sorted(_bash("pipeline ", 1)) == sorted(COMMANDS)


@pytest.mark.parametrize(
    ("line", "word", "found"),
    [
        ("pipeline topics ap", 2, ["apply"]),
        ("pipeline worker --proc", 2, ["--processes"]),
        ("pipeline worker --log-level war", 3, ["warning"]),
    ],
)
def test_bash_completes_words_of_one_command(line: str, word: int, found: list[str]) -> None:
    """Only the module of that command is loaded, so that completion is fast."""
    assert _bash(line, word) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_this_program(shell: str) -> None:
    """The script calls the program by its name and this variable."""
    script = _run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_PIPELINE_COMPLETE" in script
    assert f"complete_{shell}" in script
