"""What ties a worker process to its supervisor: it never outlives it, and tells it how far it is.

Two pipes for each process. Nothing is ever written to the first; when its other end closes, because the supervisor
is gone in whatever way, the kernel sends this process SIGIO, which ends it as SIGKILL would. A thread that waited
for the end would wait for ever behind a handler that holds the interpreter. (`PR_SET_PDEATHSIG` is Linux's alone, and
follows the thread that started the process, not its process.) On the second go the reports, one JSON line each.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from pipeline.runtime.counters import WorkerCounters

__all__ = ["TiedProcess", "ended_by", "tie"]

_READ_BYTES = 64 * 1024


class TiedProcess:
    """Starts `command` with `ends` of the pipes as its last argument; a `supervisor.Child`.

    `code_before`: the exit code of the process before it, 0 if there was none; it goes there, too.
    In a process group of its own: a Ctrl-C in the terminal is the supervisor's to pass on, once.
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

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def progress(self) -> WorkerCounters | None:
        """What it reported last."""
        if self._reports >= 0:
            with suppress(BlockingIOError):
                self._unread += os.read(self._reports, _READ_BYTES)
        *lines, self._unread = self._unread.split(b"\n")
        if lines:
            self._progress = msgspec.json.decode(lines[-1], type=WorkerCounters)
        return self._progress

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None:
            _ = self.progress  # its last words
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


def tie(ends: str) -> Callable[[WorkerCounters], None]:
    """In the process: end when the supervisor does; what reports to it. `ends`: the last argument."""
    life, reports, _ = map(int, ends.split(","))
    for end in (life, reports):
        os.set_inheritable(end, False)  # a program that a handler starts must not hold on to them
    os.set_blocking(reports, False)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":  # it went before the kernel was asked to tell
            os.kill(os.getpid(), signal.SIGKILL)
    except BlockingIOError:
        pass  # it is there

    def report(progress: WorkerCounters) -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # nobody reads: the next report says more
            os.write(reports, msgspec.json.encode(progress) + b"\n")

    return report


def ended_by(ends: str) -> signal.Signals | None:
    """The signal that ended the process before this one under the same supervisor; None for any other end."""
    code = int(ends.rpartition(",")[2])
    return signal.Signals(-code) if code < 0 else None
