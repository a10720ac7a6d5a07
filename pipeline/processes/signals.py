"""Receives signals, detects handlers that do not return, and ends a process that does not stop.

User code cannot be interrupted. A handler that does not return blocks the processing thread. Inside a C library it also
blocks Python's signal handlers. So another thread receives the signals, and ends a worker that does not stop in time.
This has the effect of a crash: the next start processes again what was not committed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.config import WorkerSettings
from pipeline.runtime.watchdog import Watchdog
from pipeline.runtime.worker import Worker

__all__ = ["Watch", "heard_signals"]

_SHOWN_FRAMES = 30
_LEFT = 1
_INTERRUPTED = 130


class Watch:
    """Watches the thread that creates it and runs `worker`, for the duration of the `with` block."""

    def __init__(self, worker: Worker, stop: threading.Event, settings: WorkerSettings) -> None:
        thread = threading.get_ident()
        clock, self._log = worker.environment.clock, worker.environment.log
        self._worker = worker
        self._stop = stop
        self._timeout_s = settings.stop_timeout_s
        self._dog = Watchdog(
            lambda: worker.at_work,
            lambda: _stack_of(thread),
            worker.note_hang,
            settings.handler_warning_s,
            clock,
            self._log,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pipeline-watch")
        self._deadline_s: float | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def left_s(self) -> float:
        """The rest of `stop_timeout_s`; all of it before the worker is asked to stop."""
        if self._deadline_s is None:
            return self._timeout_s
        return max(0.0, self._deadline_s - time.monotonic())

    def _run(self) -> None:
        while not self._ended.wait(self._dog.interval_s):
            self._dog.check()
            if self._stop.is_set():
                if self._deadline_s is None:
                    self._deadline_s = time.monotonic() + self._timeout_s
                elif time.monotonic() >= self._deadline_s:
                    self._leave()

    def _leave(self) -> None:
        at = self._worker.at_work
        doing = f"handler {at.handler} has not returned from {at.place}" if at else "it has not stopped"
        self._log.error(
            "worker_exit_forced",
            reason=f"the worker was told to stop {self._timeout_s:g} s ago, and {doing}",
            hint="start the worker again. It resumes after the last commit; no data is lost: "
            "runbooks/handler-hangs.md",
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(_LEFT)


@contextmanager
def heard_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM or SIGINT, independent of the main thread. A second SIGINT ends the process.

    Main thread only. The C part of Python's signal handling writes the signal number to a socket immediately. A signal
    handler in Python would run only after the main thread has returned from C code.
    """
    hearing, heard = socket.socketpair()
    heard.setblocking(False)

    def listen() -> None:
        while numbers := hearing.recv(16):
            for number in numbers:
                if number == signal.SIGINT and stop.is_set():
                    os._exit(_INTERRUPTED)
                if number in {signal.SIGINT, signal.SIGTERM}:
                    stop.set()

    listener = threading.Thread(target=listen, daemon=True, name="pipeline-signals")
    listener.start()
    fd_before = signal.set_wakeup_fd(heard.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        heard.close()
        listener.join()
        hearing.close()


def _heard(_number: int, _frame: object) -> None:
    """Do nothing: the listener reacts to the signal. Without this handler, the signal would end the process."""


def _stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to read another thread's stack
    return "".join(traceback.format_stack(frame, _SHOWN_FRAMES)) if frame is not None else ""
