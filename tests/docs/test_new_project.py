"""What `pipeline new` creates and prints is run as a reader runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.walkthrough import Page, environment_of_a_reader, printed_commands

_CREATION_S = 60
_CHECK_S = 300


def _new(name: str, directory: Path) -> list[str]:
    """Create the project; the commands that are printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "new", name],
        cwd=directory,
        env=environment_of_a_reader(),
        capture_output=True,
        text=True,
        timeout=_CREATION_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return printed_commands(done.stdout)


@pytest.mark.docs
@pytest.mark.timeout(500)
def test_a_new_project_passes_its_tests_mypy_and_ruff(tmp_path: Path) -> None:
    """It is the model for what a user writes next."""
    _new("my-shop", tmp_path)
    checks = [
        ("pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
        ("mypy", "--strict", "--cache-dir", os.devnull, "."),
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
    ]
    for check in checks:
        done = subprocess.run(
            [sys.executable, "-m", *check],
            cwd=tmp_path / "my-shop",
            env=environment_of_a_reader(),
            capture_output=True,
            text=True,
            timeout=_CHECK_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.kafka
@pytest.mark.docs
@pytest.mark.timeout(500)
def test_the_printed_commands_run_as_printed(tmp_path: Path, own_kafka: str) -> None:
    """They are the first commands that a user pastes."""
    commands = _new("my-shop", tmp_path)
    assert commands[:5] == [
        "cd my-shop",
        "python -m pytest",
        "pipeline broker start",
        "pipeline topics apply",
        "pipeline produce my-shop-orders orders.csv --key customer",
    ]
    commands.remove("pipeline broker start")  # `own_kafka` is one
    worker = commands.index("pipeline worker app:app")
    commands[worker] += " 2> worker.log &"  # in the reader's first terminal
    shown = [
        "3 passed",
        "my-shop-orders: created",
        '{"orders":2,"cents":800}',
        'ann  {"orders":2,"cents":800}',
        'bob  {"orders":2,"cents":2000}',
        'eve  {"orders":1,"cents":4999}',
    ]
    Page({}, "\n".join(commands), shown).run(tmp_path, own_kafka)
