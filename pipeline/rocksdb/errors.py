"""Translates RocksDB's errors: a locked or unwritable directory, a damaged state, a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipeline.core.names import TaskId
from pipeline.directories import access, blocked_at, this_user
from pipeline.errors import ConfigError, CorruptStateError, DamagedStateError, PipelineError

__all__ = ["access_failure", "disk_hint", "lock_failure", "open_failure", "use_failure", "why"]

_PERMISSIONS = frozenset({errno.EACCES, errno.EPERM})


def lock_failure(path: Path, task: TaskId) -> ConfigError:
    """The exception for a state that is already open."""
    return ConfigError(
        f"the state {path} of task {task} is open in another process or already in this one",
        hint="stop the other process first",
    )


def why(path: Path, error: OSError) -> str:
    """The reason of a failed access to `path`, with the permissions and the user if they are the reason."""
    reason = error.strerror or str(error)
    if error.errno not in _PERMISSIONS:
        return reason
    return f"{reason} ({access(blocked_at(path))}; this process runs as {this_user()})"


def disk_hint(path: Path, error: OSError) -> str:
    """What to do after a failed access to `path`."""
    if error.errno in _PERMISSIONS:
        return f"give user {this_user()} read and write access to {blocked_at(path)} and what is below it: chown, chmod"
    if error.errno == errno.EROFS:
        return "mount the disk for writing, or set worker.state_dir to a directory on another one"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free space on that disk and start the worker again"
    return "check that worker.state_dir is a directory that this user can write, and check its disk"


def access_failure(what: str, path: Path, error: OSError) -> ConfigError:
    """The exception for a path below the state directory that cannot be used. `what`: what failed, such as a task."""
    return ConfigError(f"{what}: {why(path, error)}", hint=disk_hint(path, error))


def open_failure(path: Path, task: TaskId, error: Exception) -> PipelineError:
    """The exception for a state that cannot be opened."""
    text = str(error)
    lowered = text.lower()
    if "lock hold by" in lowered or "while lock file" in lowered:
        return lock_failure(path, task)
    cause = _cause(text)
    if cause is not None:
        return access_failure(f"the state {path} of task {task} cannot be opened", path, cause)
    return CorruptStateError(
        f"the state {path} of task {task} cannot be opened: {text}",
        hint="it will be set aside and restored from the journal",
    )


def use_failure(path: Path, done: str, error: Exception) -> CorruptStateError:
    """The exception for a failed operation on an open state. `done`: its past participle, such as "read"."""
    text = str(error)
    if text.lower().startswith("corruption"):
        return DamagedStateError(
            f"the state {path} cannot be {done}: {text}",
            hint="it is damaged: check the disk; with the worker stopped, move that directory away and start again",
        )
    cause = _cause(text)
    return CorruptStateError(
        f"the state {path} cannot be {done}: {text if cause is None else why(path, cause)}",
        hint=disk_hint(path, cause)
        if cause is not None
        else "check the disk and start the worker again; what was not applied is in the journal",
    )


def _cause(text: str) -> OSError | None:
    """The operating system's error that RocksDB reports. Its errors have the text of the number, not the number."""
    for number in (errno.EACCES, errno.EROFS, errno.ENOSPC):
        if os.strerror(number).lower() in text.lower():
            return OSError(number, text)
    return None
