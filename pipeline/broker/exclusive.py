"""Only one process at a time installs into a directory, starts in it or stops what runs in it.

The lock is the kernel's (flock) and dies with its holder, so a crash leaves nothing to clean up.
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
    """Hold `lock` during the block. Raises BrokerError when another process keeps it for `timeout_s`."""
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
