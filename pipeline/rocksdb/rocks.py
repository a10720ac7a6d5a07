"""Manages the states of tasks, each a RocksDB database in its own directory: `RocksStores`.

`pipeline.rocksdb.store` documents the guarantees of a single state.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from rocksdict import AccessType, Cache

from pipeline.core.names import TaskId
from pipeline.directories import close_to_others, make_private
from pipeline.errors import ConfigError
from pipeline.rocksdb.errors import lock_failure, open_failure
from pipeline.rocksdb.forks import Held
from pipeline.rocksdb.options import open_database
from pipeline.rocksdb.snapshots import RocksStaged, put_away, remove_leftovers
from pipeline.rocksdb.store import RocksStore, RocksView

__all__ = ["RocksStores"]

_CLAIM = ".worker"
_READ_ONLY_ATTEMPTS = 50


class RocksStores:
    """`ports.Stores` below one directory. All stores share one block cache."""

    def __init__(self, state_dir: Path, block_cache_bytes: int) -> None:
        self._root = state_dir
        self._cache = Cache(block_cache_bytes)
        self._open: weakref.WeakValueDictionary[Path, RocksStore] = weakref.WeakValueDictionary()
        self._claims: dict[str, weakref.finalize[..., RocksStores]] = {}

    def claim(self, app: str) -> None:
        """Lock `<state_dir>/<app>`, deny access to other users, and delete leftover copies of states.

        Raises ConfigError if another worker has locked it, or if it is not writable.
        """
        if app in self._claims:
            return
        path = self._root / app / _CLAIM
        try:
            make_private(path.parent)
            close_to_others(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._root}: {error.strerror} ({error.filename})",
                hint="choose a directory that this user can write, with --state-dir or worker.state_dir",
            ) from error
        held = Held(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 20, 0).decode().strip()
            held.close()
            raise ConfigError(
                f"the state directory {self._root} is in use by another worker of app {app}"
                + (f", process {holder}" if holder else ""),
                hint="stop that worker first, or give this one its own: --state-dir and --worker-id",
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._claims[app] = weakref.finalize(self, held.close)
        remove_leftovers(path.parent)

    def release(self, app: str) -> None:
        claim = self._claims.pop(app, None)
        if claim is not None:
            claim()

    def path(self, task: TaskId) -> Path:
        return self._root / task.app / task.group / str(task.partition)

    def open(self, task: TaskId) -> RocksStore:
        """Open or create a state. Raises CorruptStateError, or ConfigError if it is already open or not writable."""
        path = self.path(task)
        try:
            make_private(path)
        except OSError as error:
            raise ConfigError(
                f"cannot create the state directory {path} of task {task}: {error.strerror}",
                hint="set worker.state_dir to a directory that this user can write",
            ) from error
        try:
            database = open_database(path, self._cache)
        except Exception as error:
            raise open_failure(path, task, error) from error
        store = RocksStore(database, path)
        self._open[path] = store
        return store

    def open_read_only(self, task: TaskId) -> RocksView:
        """The current state, for inspection. A worker may have it open and continue to write.

        An attempt fails if the worker's compaction deletes a file before it is opened; the call then retries. Raises
        CorruptStateError, or ConfigError if there is no state.
        """
        path = self.path(task)
        if not self.exists(task):
            raise ConfigError(
                f"there is no local state of task {task} in {path}",
                hint="run this on the worker that owns the task, with its worker.state_dir",
            )
        attempt = 0
        while True:
            try:
                access = AccessType.read_only(error_if_log_file_exist=False)
                return RocksView(open_database(path, self._cache, access), path)
            except Exception as error:
                attempt += 1
                if attempt == _READ_ONLY_ATTEMPTS or "No such file" not in str(error):
                    raise open_failure(path, task, error) from error

    def exists(self, task: TaskId) -> bool:
        return (self.path(task) / "CURRENT").exists()

    def put_away(self, task: TaskId) -> Callable[[], None]:
        """Rename the state's directory and return a function that deletes it. Raises ConfigError if the state is open.

        An interrupted deletion in place would leave a partial state that could be opened.
        """
        self._refuse_while_open(task)
        return put_away(self.path(task))

    def destroy(self, task: TaskId) -> None:
        """Delete the state. Does nothing if there is none. Raises ConfigError if it is open."""
        if self.path(task).exists():
            self.put_away(task)()

    def set_aside(self, task: TaskId) -> str:
        """Rename the state to the first unused `<partition>.aside-<n>`. Returns the new path."""
        path = self.path(task)
        self._refuse_while_open(task)
        number = 1
        while (target := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        try:
            path.rename(target)
        except OSError as error:
            raise ConfigError(
                f"cannot set the state {path} of task {task} aside: {error.strerror}",
                hint="see that this user may write to the state directory, and that its disk has room",
            ) from error
        return str(target)

    def stage(self, task: TaskId) -> RocksStaged:
        """Start a copy of a state. Raises ConfigError if the directory is not writable."""
        return RocksStaged(self.path(task))

    def _refuse_while_open(self, task: TaskId) -> None:
        """Raise ConfigError if any process has the state open. Does not change the state.

        Closing any descriptor of the lock file releases this process's own lock on it. So the file is opened only if
        none of this process's stores has the state open.
        """
        path = self.path(task)
        mine = self._open.get(path)
        if (mine is not None and not mine.closed) or _locked(path):
            raise lock_failure(path, task)


def _locked(path: Path) -> bool:
    """Whether another process holds RocksDB's lock."""
    try:
        with (path / "LOCK").open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
