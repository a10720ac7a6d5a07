"""The processes of a demonstration are ended with it, whenever a signal arrives."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.demo import processes as module
from pipeline.demo.processes import Ended, Processes, ended_by_signals, signals_postponed

STARTS: list[Callable[[Processes, Path], object]] = [
    lambda processes, file: processes.loader("payments", file),
    lambda processes, _: processes.worker("a"),
    lambda processes, _: processes.command("topics", "apply"),
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that were started. A signal arrives while `Popen` starts each; they sleep."""
    children: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            children.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module, "_PIPELINE", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    yield children
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.parametrize("start", STARTS, ids=["loader", "worker", "command"])
def test_a_signal_during_the_start_leaves_no_process(
    start: Callable[[Processes, Path], object], started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A new process that is not known yet would load payments for a Kafka that has ended."""
    with (
        pytest.raises(Ended, match="SIGTERM"),
        ended_by_signals(),
        closing(Processes("localhost:1", tmp_path, "app", tmp_path)) as processes,
    ):
        start(processes, tmp_path / "file")
    (child,) = started
    assert child.returncode == -signal.SIGKILL


def test_a_postponed_signal_is_handled_after_the_block() -> None:
    """A signal that got lost would leave the user with a demonstration that does not end."""
    done: list[str] = []

    def postpone() -> None:
        with signals_postponed():
            signal.raise_signal(signal.SIGHUP)
            done.append("the block")
        done.append("what follows")

    with pytest.raises(Ended, match="SIGHUP"), ended_by_signals():
        postpone()
    assert done == ["the block"]


def test_a_child_gets_signals_that_its_parent_postpones() -> None:
    """A worker that inherits a blocked SIGTERM could not be stopped."""
    with signals_postponed():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_a_thread_other_than_the_main_one_starts_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The comparison at the end runs commands on several threads, and only the main thread may set handlers."""
    monkeypatch.setattr(module, "_PIPELINE", [sys.executable, "-c", "print('rows')"])
    processes = Processes("localhost:1", tmp_path, "app", tmp_path)
    with closing(processes), ThreadPoolExecutor(1) as thread:
        done = thread.submit(processes.command, "table", "show").result(30)
    assert "rows" in str(done)
