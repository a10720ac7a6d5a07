"""File descriptors that forked children must not keep: `Held`.

A lock of `flock` is held until every process that inherited the descriptor has closed it. Without this module, a child
that outlives a killed worker would keep the state directory locked. A handler can start such a child with
multiprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from weakref import WeakSet

__all__ = ["Held", "in_children"]


class Held:
    """Owns a file descriptor that is closed in every forked child of this process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        _HELD.add(self)

    def close(self) -> None:
        """Close the descriptor once. A second call does nothing, because its number may belong to another file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_HELD: WeakSet[Held] = WeakSet()
_CALLED: list[Callable[[], None]] = []


def in_children(call: Callable[[], None]) -> None:
    """Call the function in every child that this process forks from now on."""
    _CALLED.append(call)


def _forked() -> None:
    for held in list(_HELD):
        held.close()
    for call in _CALLED:
        call()


os.register_at_fork(after_in_child=_forked)
