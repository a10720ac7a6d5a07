"""What forked children of this process must not keep: file descriptors (`Held`), and the state of clients.

A lock of `flock` is held until every process that inherited the descriptor has closed it. Without `Held`, a child that
outlives a killed worker would keep the state directory locked. A handler can start such a child with multiprocessing.

In a forked child, clients have no threads, and locks may be held by threads that do not exist. `in_children` and
`call_in_children` register functions that are called in the child before any other code runs there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

__all__ = ["Held", "call_in_children", "in_children", "never_release"]

T = TypeVar("T")


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
_OBJECTS: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def in_children(call: Callable[[], None]) -> None:
    """Call the function in every child that this process forks from now on."""
    _CALLED.append(call)


def call_in_children(one: T, forked: Callable[[T], None]) -> None:
    """Call `forked(one)` in each child of this process, as long as `one` lives. `forked` must not refer to it."""
    _OBJECTS[one] = forked


def never_release(client: object) -> None:
    """Leak the parent's client: its release, even at exit, would wait for threads that do not exist."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _forked() -> None:
    for held in list(_HELD):
        held.close()
    for call in _CALLED:  # before the objects, which use what these functions renew
        call()
    for one, forked in list(_OBJECTS.items()):
        forked(one)


os.register_at_fork(after_in_child=_forked)
