"""The directories of the local broker on this machine.

There is one cache directory per user, so that `start` and `stop` find the same broker from any working directory:
`$PIPELINE_CACHE_DIR`, or `exactly-once-pipeline` below `$XDG_CACHE_HOME` or `~/.cache`. Everything except broker data
may be deleted; the next start recreates it. A kernel lock (flock) allows one process at a time to install, start or
stop a broker in a directory. The lock ends with its process, so a crash needs no cleanup.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.broker.reporting import BrokerError, Report, StepProgress, silent
from pipeline.directories import make_private
from pipeline.ports import Deadline, SystemClock

__all__ = ["cache_dir", "default_data_dir", "exclusive", "explain_os_errors", "make_dir", "write_atomically"]

_POLL_S = 0.05


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The root directory of the local broker."""
    environ = os.environ if environ is None else environ
    configured = environ.get("PIPELINE_CACHE_DIR")
    if configured:
        return Path(configured).expanduser().absolute()
    xdg = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification requires relative paths to be ignored.
    base = Path(xdg) if xdg.startswith("/") else Path("~/.cache").expanduser()
    return base / "exactly-once-pipeline"


def default_data_dir(port: int, environ: Mapping[str, str] | None = None) -> Path:
    """The data directory of the broker whose first node listens on `port`."""
    return cache_dir(environ) / "brokers" / str(port)


def make_dir(path: Path) -> Path:
    """Create a directory and its parents for this user only. Raises BrokerError with the reason if it cannot."""
    with explain_os_errors(path):
        make_private(path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise BrokerError(
            f"{path} cannot be written by this user",
            hint="choose another directory with --data-dir or PIPELINE_CACHE_DIR, or correct its permissions",
        )
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file: readers see the old content or the new one, also after a crash of this process.

    The file is not synced, so a crash of the machine can leave it empty.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_os_errors(path):
        staged.write_bytes(content)
        staged.replace(path)


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Translate errors of the file system below `path` to BrokerError with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise BrokerError(
                f"the disk of {path} is full",
                hint="free some space, or choose another disk with --data-dir or PIPELINE_CACHE_DIR",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise BrokerError(
                f"{path} cannot be written by this user ({error.strerror})",
                hint="choose another directory with --data-dir or PIPELINE_CACHE_DIR, or correct its permissions",
            ) from error
        if error.errno in {errno.ENOTDIR, errno.EEXIST}:
            raise BrokerError(
                f"{path} is not a directory", hint="choose another with --data-dir or PIPELINE_CACHE_DIR"
            ) from error
        raise


@contextmanager
def exclusive(lock: Path, *, timeout_s: float, report: Report = silent) -> Iterator[None]:
    """Hold `lock` during the block. Raises BrokerError if another process holds it for `timeout_s`."""
    with explain_os_errors(lock):
        file = lock.open("ab")
    with file:
        deadline = Deadline(SystemClock(), timeout_s, _POLL_S)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report(
                    StepProgress(
                        f"waiting for another process that installs, starts or stops a broker (lock {lock})"
                    )
                )
            if not deadline.pause():
                raise BrokerError(
                    f"another process has held {lock} for {timeout_s:.0f} s",
                    hint="it may still install a broker: wait, and try again. Otherwise find and end it: "
                    f"`fuser {lock}` (package psmisc) shows its process id",
                )
        yield
