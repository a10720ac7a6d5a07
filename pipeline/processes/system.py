"""Production's randomness and executor: the only place of the runtime that touches them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["SystemRandom", "ThreadExecutor"]

T = TypeVar("T")

# Steps mostly wait for a broker, so there may be many; each owns a task or reads metadata.
MAX_THREADS = 32


class SystemRandom:
    """The machine's randomness."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - jitter, not a secret


class ThreadExecutor:
    """Runs steps on threads, in the order they were submitted as threads become free."""

    def __init__(self, threads: int = MAX_THREADS) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pipeline")

    def submit(self, step: Callable[[], T]) -> Future[T]:
        return self._pool.submit(step)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
