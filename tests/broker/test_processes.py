"""Only processes of the named node are ever ended, and they are ended for certain."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.broker.processes import end, find_node, is_gone, is_node, kill, mark, marked_dir, spawn
from tests.support.waiting import wait_until

_DEADLINE_S = 60.0
_SLEEPER = "import time; print('ready', flush=True); time.sleep(60)"
_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEPER


def _start(directory: Path, code: str, *, marked: bool = True) -> int:
    log = directory / "log"
    pid = spawn([sys.executable, "-c", code, mark(directory) if marked else "no mark"], log)
    _until(lambda: log.exists() and "ready" in log.read_text())
    return pid


def _until(condition: Callable[[], bool]) -> None:
    wait_until(condition, lambda: "the condition did not come true in time", _DEADLINE_S)


def test_started_process_is_recognised_and_ends_when_asked(tmp_path: Path) -> None:
    """The whole life of a node's process."""
    pid = _start(tmp_path, _SLEEPER)
    assert is_node(pid, tmp_path)
    assert find_node(tmp_path) == pid
    assert os.getsid(pid) == pid, "a Ctrl-C in the user's terminal would reach it"

    end({pid: tmp_path}, grace_s=_DEADLINE_S)
    assert is_gone(pid, tmp_path)
    assert find_node(tmp_path) == 0


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """A stop must come to its end when a broker hangs."""
    pid = _start(tmp_path, _STUBBORN)
    end({pid: tmp_path}, grace_s=0.1)
    assert is_gone(pid, tmp_path)


def test_process_without_the_mark_is_left_alone(tmp_path: Path) -> None:
    """After a reboot a recorded process id may belong to anybody."""
    pid = _start(tmp_path, _SLEEPER, marked=False)
    try:
        assert not is_node(pid, tmp_path)
        end({pid: tmp_path}, grace_s=0.0)
        os.kill(pid, 0)  # raises when it is gone
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_node_of_another_directory_is_left_alone(tmp_path: Path) -> None:
    """Two brokers of one user must not end one another, even with similar names."""
    (tmp_path / "1").mkdir()
    pid = _start(tmp_path / "1", _SLEEPER)
    try:
        assert not is_node(pid, tmp_path)
        kill({pid: tmp_path})
        assert is_node(pid, tmp_path / "1")
    finally:
        kill({pid: tmp_path / "1"})


def test_java_settings_of_the_user_are_not_inherited(tmp_path: Path) -> None:
    """JAVA_TOOL_OPTIONS is set on many machines, for other programs."""
    os.environ["JAVA_TOOL_OPTIONS"] = "-Dbroken"
    try:
        code = "import os; print('JAVA_TOOL_OPTIONS' in os.environ, 'ready')"
        pid = _start(tmp_path, code)
    finally:
        del os.environ["JAVA_TOOL_OPTIONS"]
    _until(lambda: is_gone(pid, tmp_path))
    assert (tmp_path / "log").read_text().startswith("False")


def test_mark_names_the_directory() -> None:
    """A taken port is explained by it."""
    assert marked_dir(["java", mark(Path("/a/node-1")), "kafka.Kafka"]) == Path("/a/node-1")
    assert marked_dir(["java", "kafka.Kafka"]) is None
