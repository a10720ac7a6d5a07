"""Keeps the C library from holding much free memory: `tuned_allocator`.

The threads of RocksDB and of the Kafka client allocate and free in turn, in blocks of all sizes. By default, glibc
gives them up to eight arenas per core, and each holds free memory of its own. It also takes larger and larger blocks
from the arenas, where holes remain (`man 3 mallopt`: M_ARENA_MAX, and the dynamic M_MMAP_THRESHOLD). A value that is
set once ends that. The figures are in decision 37.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["limit_arenas", "map_large_blocks", "tuned_allocator"]

ARENAS = 2
# Larger blocks have a mapping of their own, which goes back to the system when they are freed. In bytes.
MAPPED_BYTES = 128 * 1024
# Free memory at the end of an arena goes back when it is more than this. In bytes.
FREE_BYTES = 2_000_000
# A start allocates many large blocks, and a new mapping costs page faults: a restart took 0.1 s longer with them.
STARTED_S = 10.0
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES")


@contextmanager
def tuned_allocator() -> Iterator[None]:
    """Let glibc hold less free memory: fewer arenas at once, and mappings for large blocks after STARTED_S.

    Enter it before threads start, because glibc keeps the arenas that it has.
    """
    limit_arenas()
    later = threading.Timer(STARTED_S, map_large_blocks)
    later.daemon = True
    later.start()
    try:
        yield
    finally:
        later.cancel()


def limit_arenas() -> bool:
    """Let glibc make no more than ARENAS arenas; whether it does. Refused as in `map_large_blocks`."""
    return _set({_M_ARENA_MAX: ARENAS})


def map_large_blocks() -> bool:
    """Give blocks of MAPPED_BYTES and more a mapping; whether glibc does.

    Nothing is changed where the environment tunes the allocator already, or with another C library.
    """
    return _set({_M_MMAP_THRESHOLD: MAPPED_BYTES, _M_TRIM_THRESHOLD: FREE_BYTES})


def _set(values: Mapping[int, int]) -> bool:
    if any(name.startswith(_VARIABLES) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(name, value) for name, value in values.items()])  # noqa: C419 - each of them is set
