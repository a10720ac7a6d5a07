"""Traces of real processes: which ends leave one, on which thread, and not in whose name."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.crashes import read_trace
from pipeline.errors import ConfigError
from pipeline.ports import Ending
from pipeline.rocksdb.crash_files import FATAL_SIGNALS, CrashFiles

PROGRAM = """
import ctypes, os, pathlib, signal, sys, threading, time
from pipeline.rocksdb.crash_files import CrashFiles
log = CrashFiles(pathlib.Path(sys.argv[1]))
log.previous("app")
log.begin("1-one")
log.handling(b"a place", 3, 4)
"""
SEGV = "ctypes.string_at(0)\n"
ON_ANOTHER_THREAD = "t = threading.Thread(target=ctypes.string_at, args=(0,)); t.start(); t.join()\n"
ABORT = "os.abort()\n"
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"
EXIT = "os._exit(3)\n"
FATAL_ERROR = "ctypes.pythonapi.Py_FatalError(b'broken')\n"
FORKED = "child = os.fork()\nif not child: ctypes.string_at(0)\nos.waitpid(child, 0)\n" + KILL
CHILD_RETURNS = "child = os.fork()\nif not child: log.handled(); os._exit(0)\nos.waitpid(child, 0)\n" + KILL


def end_of(code: str, tmp_path: Path) -> tuple[int, Ending]:
    """How a process that does this ends, and what is known of it."""
    (tmp_path / "app").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code, str(tmp_path)], capture_output=True, check=False, timeout=60
    )
    ending = CrashFiles(tmp_path).previous("app")
    assert ending is not None, done.stderr
    assert (ending.process, ending.place, ending.first, ending.last) == ("1-one", b"a place", 3, 4)
    return done.returncode, ending


@pytest.mark.parametrize(
    ("code", "ended_with", "reason", "here"),
    [
        (SEGV, -signal.SIGSEGV, "Segmentation fault", True),
        (ON_ANOTHER_THREAD, -signal.SIGSEGV, "Segmentation fault", False),
        (ABORT, -signal.SIGABRT, "Aborted", True),
    ],
)
def test_a_fatal_signal_leaves_a_trace(
    code: str, ended_with: int, reason: str, here: bool, tmp_path: Path
) -> None:
    """It is the only proof that a record did it, and says which thread."""
    code_of_end, ending = end_of(code, tmp_path)
    trace = read_trace(ending.trace)
    assert code_of_end == ended_with
    assert trace is not None
    assert trace.reason == reason
    assert (trace.thread == ending.thread) is here


@pytest.mark.parametrize("code", [KILL, EXIT, FORKED, CHILD_RETURNS, FATAL_ERROR])
def test_other_ends_leave_no_trace(code: str, tmp_path: Path) -> None:
    """SIGKILL, an exit, what a forked child does; and Python's own fatal error, whose trace is elsewhere."""
    _, ending = end_of(code, tmp_path)
    assert (ending.trace, ending.left) == ("", False)


def test_a_supervisor_that_saw_the_signal_is_believed(tmp_path: Path) -> None:
    """Python's own fatal errors leave no trace, and end with SIGABRT. The thread stays unknown."""
    end_of(FATAL_ERROR, tmp_path)
    for number in signal.Signals:
        ending = CrashFiles(tmp_path, number).previous("app")
        assert ending is not None
        trace = read_trace(ending.trace)
        assert (trace is not None) is (number in FATAL_SIGNALS)
        assert trace is None or (trace.thread, number.name in trace.reason) == (None, True)


def test_a_fault_handler_of_the_program_is_on_again_at_the_end(tmp_path: Path) -> None:
    """The process may live on, as with App.run in a program."""
    (tmp_path / "app").mkdir()
    before = faulthandler.is_enabled()
    with Path(os.devnull).open("wb") as file:
        faulthandler.enable(file)
        for log in (CrashFiles(tmp_path), CrashFiles(tmp_path)):
            log.previous("app")
            log.begin("1-one")
            log.leave()
        assert faulthandler.is_enabled()
        faulthandler.disable()
    if before:
        faulthandler.enable(sys.__stderr__ or 2)


def test_a_note_that_is_no_note_is_nothing(tmp_path: Path) -> None:
    """Of a later release, cut short, or of a disk that lost a block."""
    (tmp_path / "app" / ".crashes").mkdir(parents=True)
    note = tmp_path / "app" / ".crashes" / "note"
    for content in (b"", b"\1" * 20, b"\2" + b"\1" * 4095, bytes(4096)):
        note.write_bytes(content)
        assert CrashFiles(tmp_path).previous("app") is None


def test_a_log_that_cannot_be_written_is_a_setting_to_correct(tmp_path: Path) -> None:
    """Not a traceback, whatever runs as root or not."""
    (tmp_path / "app").write_text("a file in the place of a directory")
    with pytest.raises(ConfigError, match="cannot use the crash log"):
        CrashFiles(tmp_path).previous("app")
