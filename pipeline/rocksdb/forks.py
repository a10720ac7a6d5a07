"""What a forked child must not keep of its parent's state directory: `Held` files.

A lock of `flock`, and a file that is open, belong to all processes that inherited the descriptor. A child that
outlives a killed worker, for example one that a handler started with multiprocessing, would keep the directory
locked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from weakref import WeakSet

__all__ = ["Held", "in_children"]


class Held:
    """Owns a file descriptor, which is closed in every child that this process forks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _HELD.add(self)

    def close(self) -> None:
        """Nothing happens the second time: the number may be another file's by then."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_HELD: WeakSet[Held] = WeakSet()
_CALLED: list[Callable[[], None]] = []


def in_children(call: Callable[[], None]) -> None:
    """Call this in every child, for as long as this process lives."""
    _CALLED.append(call)


def _forked() -> None:
    for held in list(_HELD):
        held.close()
    for call in _CALLED:
        call()


os.register_at_fork(after_in_child=_forked)
