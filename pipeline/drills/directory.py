"""Turns errors of the drills' directory into ones with a next step: `usable`, `require_writable`.

Intents, reports and the notes of proxies are files below it, and the runner must not end with a traceback while a fault
is open: it continues after a PipelineError, and restores what it changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.directories import make_private
from pipeline.errors import InputError
from pipeline.rocksdb.errors import why

__all__ = ["require_writable", "usable"]


@contextmanager
def usable(directory: Path) -> Iterator[None]:
    """Run a block that reads or writes below the directory. Raises InputError instead of OSError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot use the directory of drills {directory}: {why(directory, error)}",
            hint="run the command as the user who runs drills here, or choose another directory: drills.directory in "
            "pipeline.toml",
        ) from error


def require_writable(directory: Path) -> None:
    """Create the directory if it is missing, and a file in it that is deleted at once. Raises InputError."""
    with usable(directory):
        make_private(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
