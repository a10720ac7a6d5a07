"""Randomness, threads and facts about processes in production. Only this module uses randomness and threads for the
runtime.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

__all__ = ["START_TICKS", "SystemRandom", "ThreadExecutor", "process_began_s", "process_stat"]

T = TypeVar("T")

# Steps mostly wait for a broker, so there can be many threads. Each step works on one task or reads metadata.
MAX_THREADS = 32
START_TICKS = 19  # the field of `process_stat` with the start of the process, in ticks since the boot


def process_stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` after the name of the process. Raises OSError."""
    content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return content.rpartition(")")[2].split()


def process_began_s() -> float | None:
    """The start of this process in seconds of `time.monotonic`; None if the system does not tell."""
    try:
        since_boot_s = int(process_stat(os.getpid())[START_TICKS]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s)


class SystemRandom:
    """Random numbers of the operating system."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret


class ThreadExecutor:
    """Runs steps on threads, in the order in which they were submitted."""

    def __init__(self, threads: int = MAX_THREADS) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pipeline")

    def submit(self, step: Callable[[], T]) -> Future[T]:
        return self._pool.submit(step)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
