"""The directories of the local broker on this machine.

There is one cache directory per user, so that `start` and `stop` find the same broker from any working directory:
`$PIPELINE_CACHE_DIR`, or `exactly-once-pipeline` below `$XDG_CACHE_HOME` or `~/.cache`. A start recreates everything in
it except the records of the development brokers. A kernel lock (flock) allows one process at a time to install, start
or stop a broker in a directory. It ends with its process, so nothing must be cleaned up after a crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.broker.errors import BrokerError
from pipeline.broker.progress import Report, StepProgress, silent
from pipeline.directories import make_private
from pipeline.ports import Deadline, SystemClock

__all__ = ["cache_dir", "default_data_dir", "exclusive", "explain_os_errors", "make_dir", "write_atomically"]


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The root directory of the local broker."""
    environ = os.environ if environ is None else environ
    own = environ.get("PIPELINE_CACHE_DIR")
    if own:
        return Path(own).expanduser().absolute()
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
    """Replace a file atomically: after a crash, and for a reader, it has the old content or the new one."""
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


_POLL_S = 0.05


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
                report(StepProgress("waiting for another process that is doing the same"))
            if not deadline.pause():
                raise BrokerError(
                    f"another process has held {lock} for {timeout_s:.0f} s",
                    hint=f"see which one with `fuser {lock}`, end it, and try again",
                )
        yield
