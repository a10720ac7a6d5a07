"""File systems of a few megabytes, in memory: for tests that fill a disk. To mount one needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["small_disk"]


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of this size at the directory. Skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system, which needs root")
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this environment does not allow mounts")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)  # noqa: S607 - as mount
