"""A lock, so that only one process at a time installs, starts or stops a broker in a directory.

It is a kernel lock (flock), which ends with its process, so nothing must be cleaned up after a crash.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.broker.errors import BrokerError
from pipeline.broker.places import explain_os_errors
from pipeline.broker.progress import Report, StepProgress, silent
from pipeline.ports import Deadline, SystemClock

__all__ = ["exclusive"]

_POLL_S = 0.05


@contextmanager
def exclusive(lock: Path, *, timeout_s: float, report: Report = silent) -> Iterator[None]:
    """Hold `lock` during the block. Raises BrokerError if another process holds it for `timeout_s`."""
    with explain_os_errors(lock):
        file = lock.open("ab")
    with file:
        deadline = Deadline(SystemClock(), timeout_s, _POLL_S)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(StepProgress("waiting for another process that is doing the same"))
            if not deadline.pause():
                raise BrokerError(
                    f"another process has held {lock} for {timeout_s:.0f} s",
                    hint=f"see which one with `fuser {lock}`, end it, and try again",
                )
        yield
