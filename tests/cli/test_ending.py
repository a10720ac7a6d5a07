"""A command ends with its code, whatever the user's module has left running."""

from __future__ import annotations

import subprocess
import sys

import pytest

MAIN = """
import multiprocessing, sys, threading, time
import pipeline.cli.main, pipeline.cli.main as command

pipeline.cli.main.LINGER_S = {linger_s}
{left}
def run():
    {end}

command.run = run
command.main()
"""
THREAD = "threading.Thread(target=threading.Event().wait, name='theirs').start()"
CHILD = "multiprocessing.get_context('fork').Process(target=time.sleep, args=(4,), name='worker-1').start()"
QUICK = "threading.Thread(target=time.sleep, args=(0.1,), name='theirs').start()"


@pytest.mark.parametrize(
    ("left", "end", "code", "named"),
    [
        (THREAD, "sys.exit(5)", 5, "thread theirs"),
        (THREAD, "sys.exit('wrong')", 1, "thread theirs"),
        (THREAD, "raise ValueError", 1, "thread theirs"),
        (CHILD, "sys.exit()", 0, "(worker-1)"),
    ],
)
def test_what_keeps_a_process_is_named_and_left(left: str, end: str, code: int, named: str) -> None:
    """It was decided how the command ends; the rest of the program does not change that."""
    done = _run(left, end, linger_s=0.3)
    assert done.returncode == code
    assert "these still ran in its process: " in done.stderr
    assert named in done.stderr


def test_a_thread_that_ends_in_time_is_waited_for() -> None:
    """It may have something to write."""
    done = _run(QUICK, "sys.exit(5)", linger_s=30)
    assert (done.returncode, done.stderr) == (5, "")


def _run(left: str, end: str, linger_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN.format(left=left, end=end, linger_s=linger_s)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
