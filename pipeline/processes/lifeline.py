"""Ends a worker process when its supervisor ends, and reports the counters of the process to the supervisor.

There are two pipes per process. Nothing is written to the first. When the supervisor ends, for any reason, the other
end of this pipe closes, and the kernel sends SIGIO to the process. The default action of SIGIO ends the process, as
SIGKILL would. A thread that waits for the end of the pipe would not work: a handler that holds the interpreter lock
would block it. `PR_SET_PDEATHSIG` exists only on Linux, and is tied to the thread that started the process. The second
pipe carries the reports, one JSON line each. Each has the record by which the supervisor notes the end of the process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from pipeline.core.departures import DepartureRecord
from pipeline.runtime.metrics.figures import WorkerCounters

__all__ = ["TiedProcess", "ended_by", "tie"]

_READ_BYTES = 64 * 1024


class _Report(NamedTuple):
    progress: WorkerCounters
    departure: DepartureRecord


class TiedProcess:
    """A child process that ends with its supervisor. Implements `supervisor.Child`.

    It has its own process group, so that a Ctrl-C in the terminal reaches it only once, through the supervisor.

    Args:
        command: The command. The descriptors of the pipes and `code_before` are appended as its last argument.
        code_before: The exit code of the previous process of this worker; 0 if there was none.
    """

    def __init__(self, command: Sequence[str], code_before: int = 0) -> None:
        life, self._life = os.pipe()
        self._reports, reports = os.pipe()
        os.set_blocking(self._reports, False)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                [*command, f"{life},{reports},{code_before}"],
                stdin=subprocess.DEVNULL,
                pass_fds=(life, reports),
                process_group=0,
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(life)
            os.close(reports)
        self._unread = b""
        self._progress: WorkerCounters | None = None
        self._departure: DepartureRecord | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def departure(self) -> DepartureRecord | None:
        """What notes its departure, from its last report."""
        return self._departure

    @property
    def progress(self) -> WorkerCounters | None:
        """The last report of the process."""
        if self._reports >= 0:
            with suppress(BlockingIOError):
                self._unread += os.read(self._reports, _READ_BYTES)
        *lines, self._unread = self._unread.split(b"\n")
        if lines:
            self._progress, self._departure = msgspec.json.decode(lines[-1], type=_Report)
        return self._progress

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            _ = self.progress  # read the last report
            self._close()
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def _close(self) -> None:
        if self._reports >= 0:
            os.close(self._life)
            os.close(self._reports)
            self._reports = -1


def tie(ends: str) -> Callable[[WorkerCounters, DepartureRecord], None]:
    """In the child process: end when the supervisor ends. Return a function that reports to the supervisor.

    `ends` is the last argument of the command.
    """
    life, reports, _ = map(int, ends.split(","))
    for end in (life, reports):
        os.set_inheritable(end, False)  # a program that a handler starts must not inherit them
    os.set_blocking(reports, False)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":  # the supervisor ended before F_SETOWN
            os.kill(os.getpid(), signal.SIGKILL)
    except BlockingIOError:
        pass  # the supervisor runs

    def report(progress: WorkerCounters, departure: DepartureRecord) -> None:
        # If the pipe is full, the next report replaces this one.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(reports, msgspec.json.encode(_Report(progress, departure)) + b"\n")

    return report


def ended_by(ends: str) -> signal.Signals | None:
    """The signal that ended the previous process of this worker. None if a signal did not end it."""
    code = int(ends.rpartition(",")[2])
    return signal.Signals(-code) if code < 0 else None
