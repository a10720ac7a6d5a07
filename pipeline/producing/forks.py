"""What a fork leaves in the child: clients without their threads, and locks whose holders do not exist there.

An object with such resources registers itself, and is notified in the child, before anything else runs there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pipeline.producing.delivery import renew_lock
from pipeline.producing.ids import forget_random

__all__ = ["leave_behind", "tell_in_children"]


T = TypeVar("T")

_KNOWN: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def tell_in_children(one: T, forked: Callable[[T], None]) -> None:
    """Call `forked(one)` in each child of this process, as long as `one` lives. `forked` must not refer to it."""
    _KNOWN[one] = forked


def leave_behind(client: object) -> None:
    """Never release the parent's client, not at the end of the process either: it would wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def _in_child() -> None:
    renew_lock()
    forget_random()
    for one, forked in list(_KNOWN.items()):
        forked(one)


os.register_at_fork(after_in_child=_in_child)
