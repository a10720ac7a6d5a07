"""A process that stands still for a while."""

from __future__ import annotations

import os
import signal
import time

__all__ = ["stall"]


def stall(pid: int, seconds: float) -> None:
    """Stop the process for this time, as a paused machine would."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
