"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

WITHIN_S = 60.0
_PAUSE_S = 0.05


def wait_until(condition: Callable[[], object], story: Callable[[], str], within_s: float = WITHIN_S) -> None:
    """Wait until the condition holds. Fails with `story()` if it does not within `within_s`.

    Pauses between two checks, because a busy loop would take a core from the processes under test.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s:\n{story()}"
        time.sleep(_PAUSE_S)
