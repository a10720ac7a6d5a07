"""Directories that hold users' data: only the user who runs us may enter them, whatever the umask says.

The mode of the outermost one protects everything below it, files included.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["close_to_others", "make_private"]

_PRIVATE = 0o700


def make_private(path: Path) -> None:
    """Create a directory and its missing parents, all with mode 0700. One that exists stays as it is.

    Raises OSError.
    """
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    for directory in reversed(missing):
        directory.mkdir(mode=_PRIVATE, exist_ok=True)
    path.mkdir(mode=_PRIVATE, exist_ok=True)  # FileExistsError for a file


def close_to_others(path: Path, *, share_with_group: bool = False) -> None:
    """Take the group's and everyone's access off one of our directories that every local user can use.

    Earlier releases created them so. A mode that admits only the group was chosen by the operator, and a directory of
    another user is that user's to protect: both stay. Raises OSError.
    """
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and mode & stat.S_IRWXO:
        path.chmod(mode & ~stat.S_IRWXO & ~(0 if share_with_group else stat.S_IRWXG))
