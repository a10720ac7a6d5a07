"""The exit code of a tool."""

from __future__ import annotations

import os
import signal

import pytest
from rich.console import Console

from pipeline.demo.processes import DemoError
from tools.commands import exit_code


def test_a_tool_ends_with_the_code_that_it_has_set(capsys: pytest.CaptureFixture[str]) -> None:
    """A failed drill is not an error of the tool, and its code must reach the caller."""
    with exit_code(Console(), "drills") as code:
        code.value = 3
    assert (code.value, capsys.readouterr().out) == (3, "")


def _fail() -> None:
    raise DemoError("Kafka did not start", hint="see its log")


def test_an_error_ends_a_tool_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback would hide what to do next."""
    with exit_code(Console(soft_wrap=True), "drills") as code:
        _fail()
    assert code.value == 1
    assert capsys.readouterr().out.startswith("drills failed: Kafka did not start")


def test_a_signal_ends_a_tool_with_the_code_of_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """`make` and shells tell an interrupted command from a failed one by its code."""
    with exit_code(Console(soft_wrap=True), "drills") as code:
        os.kill(os.getpid(), signal.SIGTERM)
    assert code.value == 128 + signal.SIGTERM
    assert "ended by" in capsys.readouterr().out
