"""Keeps the C library from holding much free memory: `tune_allocator`.

The threads of RocksDB and of the Kafka client allocate and free in turn, in blocks of all sizes. By default, glibc
gives them up to eight arenas per core, and each holds free memory of its own. It also takes larger and larger blocks
from the arenas, where holes remain (`man 3 mallopt`: M_ARENA_MAX, and the dynamic M_MMAP_THRESHOLD). A value that is
set once ends that. The figures are in decision 37.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["tune_allocator"]

ARENAS = 2
# Larger blocks have a mapping of their own, which goes back to the system when they are freed. In bytes.
MAPPED_BYTES = 128 * 1024
# Free memory at the end of an arena goes back when it is more than this. In bytes.
FREE_BYTES = 2_000_000
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_VARIABLES = "MALLOC_"
_TUNABLES = "GLIBC_TUNABLES"


def tune_allocator() -> bool:
    """Let glibc hold less free memory from now on; whether it does.

    It keeps the arenas that it has, so call this before threads start. Nothing is changed where the environment tunes
    the allocator already, or with another C library.
    """
    if any(name == _TUNABLES or name.startswith(_VARIABLES) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    values = {_M_ARENA_MAX: ARENAS, _M_MMAP_THRESHOLD: MAPPED_BYTES, _M_TRIM_THRESHOLD: FREE_BYTES}
    return all([mallopt(name, value) for name, value in values.items()])  # noqa: C419 - each of them is set
