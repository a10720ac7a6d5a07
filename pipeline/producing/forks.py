"""What a fork leaves in the child: clients without their threads, and locks whose holders do not exist there.

Whoever holds such things registers itself, and is told in the child, before anything else runs there.
"""

from __future__ import annotations

import ctypes
import os
from typing import Protocol
from weakref import WeakSet

from pipeline.producing.delivery import renew_lock
from pipeline.producing.ids import forget_random

__all__ = ["Forkable", "leave_behind", "tell_in_children"]


class Forkable(Protocol):
    """Told in a child that it is one now."""

    def forked(self) -> None: ...


_KNOWN: WeakSet[Forkable] = WeakSet()


def tell_in_children(one: Forkable) -> None:
    """Call `forked` in each child of this process, for as long as `one` lives."""
    _KNOWN.add(one)


def leave_behind(client: object) -> None:
    """Never release the parent's client, not at the end of the process either: it would wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _in_child() -> None:
    renew_lock()
    forget_random()
    for one in list(_KNOWN):
        one.forked()


os.register_at_fork(after_in_child=_in_child)
