"""Directories that hold users' data: only the user who runs us may enter them, whatever the umask says.

The mode of the outermost one protects everything below it, files included. `access` and `blocked_at` describe
permissions for error messages.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

__all__ = ["access", "blocked_at", "close_to_others", "is_present", "make_private", "this_user"]

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


def is_present(path: Path) -> bool:
    """Whether the path exists. Raises OSError if this cannot be found out, for example PermissionError."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def this_user() -> str:
    """The name of the user who runs this process, or the number of a user without a name."""
    return _name(os.geteuid())


def blocked_at(path: Path) -> Path:
    """The path itself, or its innermost parent directory whose permissions can be read.

    After a PermissionError below `path`, that is the place to look at.
    """
    for place in (path, *path.parents):
        try:
            place.stat()
        except OSError:
            continue
        return place
    return path


def access(path: Path) -> str:
    """The mode and the owner of a path, for a message: `/var/lib/orders has mode 0700 and belongs to kafka`."""
    try:
        found = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path} has mode {stat.S_IMODE(found.st_mode):04o} and belongs to {_name(found.st_uid)}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
