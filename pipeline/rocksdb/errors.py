"""Translates RocksDB's errors: a locked or unwritable directory, a damaged state, a full disk."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, CorruptStateError, DamagedStateError, PipelineError

__all__ = ["lock_failure", "open_failure", "use_failure"]


def lock_failure(path: Path, task: TaskId) -> ConfigError:
    """The exception for a state that is already open."""
    return ConfigError(
        f"the state {path} of task {task} is open in another process or already in this one",
        hint="stop the other process first",
    )


def open_failure(path: Path, task: TaskId, error: Exception) -> PipelineError:
    """The exception for a state that cannot be opened."""
    text = str(error)
    lowered = text.lower()
    if "lock hold by" in lowered or "while lock file" in lowered:
        return lock_failure(path, task)
    if "permission denied" in lowered or "no space left" in lowered or "read-only file system" in lowered:
        return ConfigError(
            f"the state {path} of task {task} cannot be opened: {text}",
            hint="make the directory writable and free some space, then start the worker again",
        )
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
    full = "no space left" in text.lower()
    return CorruptStateError(
        f"the state {path} cannot be {done}: {text}",
        hint="free space on that disk and start the worker again"
        if full
        else "check the disk and start the worker again; what was not applied is in the journal",
    )
