"""How many arenas the C library makes in a worker."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes.native_memory import ARENAS

# Threads that are alive at the same time get arenas of their own, until there are as many as are allowed.
PROGRAM = """
import ctypes, sys, threading
from pipeline.processes.native_memory import limit_arenas, map_large_blocks
limited = limit_arenas() and map_large_blocks() if sys.argv[1] == "limited" else None
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.free.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
barrier = threading.Barrier(8)
def allocate():
    place = libc.malloc(10_000)
    barrier.wait()
    libc.free(place)
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
def mapped():
    before = info().hblks
    place = libc.malloc(1_000_000)
    after = info().hblks
    libc.free(place)
    return after - before
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks "
        "fordblks keepcost".split()]
info = libc.mallinfo2
info.restype = Info
print(limited, "mapped", [mapped(), mapped()])
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limit is one of glibc")


def _run(file: Path, how: str, **variables: str) -> str:
    untuned = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(file)],
        env=untuned | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout


def _arenas(file: Path, how: str, **variables: str) -> tuple[int, str]:
    told = _run(file, how, **variables)
    return file.read_text().count("<heap nr="), told.split()[0]


def test_a_worker_has_two_arenas(tmp_path: Path) -> None:
    """Each arena holds free memory of its own: up to eight for each core took 40 MB more than two."""
    assert _arenas(tmp_path / "free", "free")[0] > ARENAS
    assert _arenas(tmp_path / "limited", "limited") == (ARENAS, "True")


def test_a_large_block_goes_back_to_the_system_when_it_is_freed(tmp_path: Path) -> None:
    """Without a fixed threshold, glibc takes blocks of this size from an arena after the first one was freed."""
    assert "mapped [1, 1]" in _run(tmp_path / "limited", "limited")
    assert "mapped [1, 0]" in _run(tmp_path / "free", "free")


def test_the_choice_of_the_user_stays(tmp_path: Path) -> None:
    """Who tunes the allocator has measured it."""
    assert _arenas(tmp_path / "chosen", "limited", MALLOC_ARENA_MAX="3") == (3, "False")
