"""A worker process ends with its supervisor, whatever it is doing, and tells it how far it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.departures import DepartureRecord
from pipeline.processes.lifeline import TiedProcess, ended_by

DEADLINE_S = 60.0
CHILD = """
import ctypes, sys, time
from pipeline.core.departures import DepartureRecord
from pipeline.processes.lifeline import tie
from pipeline.runtime.metrics.figures import WorkerCounters
report = tie(sys.argv[1])
report(WorkerCounters(1, 2, 3, 4, 5, 6, 7, 8, 9), DepartureRecord("notes", b"left/w", b"[1]"))
"""
HANGS_IN_PYTHON = CHILD + "time.sleep(600)"
# As a handler inside a C library that never lets go: no other thread of the interpreter runs.
HOLDS_THE_INTERPRETER = CHILD + "ctypes.PyDLL(None).sleep(600)"
SUPERVISOR = """
import sys, time
from pipeline.processes.lifeline import TiedProcess
children = [TiedProcess([sys.executable, "-c", sys.argv[1]]) for _ in range(2)]
while not all(child.progress for child in children):
    time.sleep(0.01)
print(*(child.pid for child in children), flush=True)
time.sleep(600)
"""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_what_a_process_reports_is_heard_and_its_last_words_are_kept() -> None:
    """The supervisor tells by it whether the process had work, and shows it."""
    child = TiedProcess([sys.executable, "-c", CHILD])
    _until(lambda: child.poll() is not None)
    assert child.poll() == 0
    assert child.progress is not None
    assert (child.progress.records, child.progress.live) == (1, 6)
    assert child.departure == DepartureRecord("notes", b"left/w", b"[1]")


def test_a_process_learns_the_signal_that_ended_the_one_before() -> None:
    """In the argument by which it is tied; an exit code is not a signal."""
    says = (
        "import sys; from pipeline.processes.lifeline import ended_by; sys.exit(ended_by(sys.argv[1]) or 40)"
    )
    for code_before, said in ((-signal.SIGABRT, signal.SIGABRT), (1, 40), (0, 40)):
        child = TiedProcess([sys.executable, "-c", says], code_before)
        _until(lambda child=child: child.poll() is not None)  # type: ignore[misc]
        assert child.poll() == said
    assert ended_by("3,4,-11") is signal.SIGSEGV


def test_a_process_ends_by_what_it_is_told() -> None:
    """SIGTERM first, and SIGKILL for one that does not hear it."""
    child = TiedProcess([sys.executable, "-c", HANGS_IN_PYTHON])
    child.terminate()
    _until(lambda: child.poll() is not None)
    assert child.poll() == -signal.SIGTERM
    child.kill()  # of a process that is gone: nothing


@pytest.mark.parametrize("code", [HANGS_IN_PYTHON, HOLDS_THE_INTERPRETER], ids=["python", "c"])
def test_no_process_outlives_a_supervisor_that_is_killed(code: str) -> None:
    """Left alone it would keep tasks and disk from the processes of the next supervisor."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, code], stdout=subprocess.PIPE, env={**os.environ}, text=True
    )
    assert supervisor.stdout is not None
    with supervisor, supervisor.stdout as output:
        pids = [int(word) for word in output.readline().split()]
        assert len(pids) == 2
        assert not any(_is_gone(pid) for pid in pids)
        supervisor.kill()
        _until(lambda: all(_is_gone(pid) for pid in pids))
