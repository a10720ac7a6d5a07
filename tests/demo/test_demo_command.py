"""`pipeline demo` as a process: its result, its exit code, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import demo as command
from pipeline.cli.main import assemble
from tests.support.walkthrough import environment_of_a_reader

_RUN_S = 170


def _start(directory: Path) -> subprocess.Popen[str]:
    """A demonstration whose temporary directory is below `directory`, in an empty working directory."""
    (directory / "tmp").mkdir()
    (directory / "work").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", "--seconds", "4", "--seed", "7"],
        cwd=directory / "work",
        env={**environment_of_a_reader(), "TMPDIR": str(directory / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _left(directory: Path) -> list[str]:
    """Processes whose command line names the directory, and files in it."""
    processes = [
        line
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(directory) in (line := _read(path).replace("\0", " "))
    ]
    return processes + [str(path) for part in ("tmp", "work") for path in (directory / part).iterdir()]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.mark.kafka
def test_a_demo_is_exact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """It is the first thing that a user sees, on the user's own machine."""
    process = _start(tmp_path)
    said, _ = process.communicate(timeout=_RUN_S)
    assert process.returncode == 0, said
    last = said.splitlines()[-1]
    found = re.fullmatch(r"demo: 6000 events, (\d+) kills, 0 lost, 0 duplicated, \d+ s", last)
    assert found, said
    assert int(found[1]) >= 1
    assert re.search(r"^output records +6,000 +6,000 +0 +0 +0$", said, re.MULTILINE)
    assert re.search(r"^table rows +200 +200 +0 +0 +0$", said, re.MULTILINE)
    assert _left(tmp_path) == []


@pytest.mark.kafka
def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    """A Kafka and three workers that nobody looks for would slow down the user's machine."""
    process = _start(tmp_path)
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if line.startswith("3 workers share"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert _left(tmp_path) == []


@pytest.mark.parametrize(("exact", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_whether_results_are_exact(
    exact: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script, such as the release check, reads only the exit code."""
    monkeypatch.setattr(command, "run_demo", lambda *_: exact)
    assert CliRunner().invoke(assemble(), ["demo"]).exit_code == code
