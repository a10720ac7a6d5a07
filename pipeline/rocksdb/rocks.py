"""Manages the states of tasks, each a RocksDB database in its own directory: `RocksStores`.

`pipeline.rocksdb.store` documents the guarantees of a single state.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from rocksdict import AccessType

from pipeline.core.names import GroupId, TaskId
from pipeline.directories import close_to_others, is_present, make_private
from pipeline.errors import ConfigError, InputError
from pipeline.forks import Held
from pipeline.rocksdb.errors import access_failure, lock_failure, open_failure, why
from pipeline.rocksdb.options import SharedMemory, open_database
from pipeline.rocksdb.snapshots import RocksStaged, put_away, remove_leftovers
from pipeline.rocksdb.store import RocksStore, RocksView

__all__ = ["CLAIM", "RocksStores", "state_directories"]

CLAIM = ".worker"  # locked by the worker, and contains its process id
_READ_ONLY_ATTEMPTS = 50


class RocksStores:
    """`ports.Stores` below one directory. All stores share one block cache, which also counts the write buffers."""

    def __init__(self, state_dir: Path, block_cache_bytes: int) -> None:
        self._root = state_dir
        self._memory = SharedMemory(block_cache_bytes)
        self._open: weakref.WeakValueDictionary[Path, RocksStore] = weakref.WeakValueDictionary()
        self._lock = (
            threading.Lock()
        )  # tasks are opened side by side, and each copy of `_open` iterates over it
        self._claims: dict[str, weakref.finalize[..., RocksStores]] = {}

    def claim(self, app: str) -> None:
        """Lock `<state_dir>/<app>`, deny access to other users, and delete leftover copies of states.

        Raises ConfigError if another worker has locked it, or if it is not writable.
        """
        if app in self._claims:
            return
        path = self._root / app / CLAIM
        try:
            make_private(path.parent)
            close_to_others(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._root}: {why(Path(error.filename or path), error)}",
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
        return self._root / task.app / task.group / str(task.number)

    def partitions(self, group: GroupId) -> list[int]:
        """The numbers of the tasks of a group that have a directory here. Raises ConfigError if it cannot be read."""
        path = self._root / group.app / group.group
        try:
            return sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdigit())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise access_failure(f"the states {path} cannot be read", path, error) from error

    def open(self, task: TaskId) -> RocksStore:
        """Open or create a state. Raises CorruptStateError, or ConfigError if it is already open or not writable."""
        path = self.path(task)
        try:
            make_private(path)
        except OSError as error:
            raise access_failure(
                f"cannot create the state directory {path} of task {task}", path, error
            ) from error
        self._memory.adapt(1 + sum(not store.closed for store in self._stores()))
        try:
            database = open_database(path, self._memory)
        except Exception as error:
            raise open_failure(path, task, error) from error
        store = RocksStore(database, path, self._limit_write_buffers)
        with self._lock:
            self._open[path] = store
        return store

    def _stores(self) -> list[RocksStore]:
        with self._lock:
            return list(self._open.values())

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
                return RocksView(open_database(path, self._memory, access), path)
            except Exception as error:
                attempt += 1
                if attempt == _READ_ONLY_ATTEMPTS or "No such file" not in str(error):
                    raise open_failure(path, task, error) from error

    def exists(self, task: TaskId) -> bool:
        """Whether there is a state. Raises ConfigError if its directory cannot be read."""
        path = self.path(task)
        try:
            return is_present(path / "CURRENT")
        except OSError as error:
            raise _unreadable(path, task, error) from error

    def put_away(self, task: TaskId) -> Callable[[], None]:
        """Rename the state's directory and return a function that deletes it. Raises ConfigError if the state is open.

        An interrupted deletion in place would leave a partial state that could be opened.
        """
        self._refuse_while_open(task)
        return put_away(self.path(task))

    def destroy(self, task: TaskId) -> None:
        """Delete the state. Does nothing if there is none. Raises ConfigError if it is open."""
        path = self.path(task)
        try:
            present = is_present(path)
        except OSError as error:
            raise _unreadable(path, task, error) from error
        if present:
            self.put_away(task)()

    def set_aside(self, task: TaskId) -> str:
        """Rename the state to the first unused `<partition>.aside-<n>`. Returns the new path."""
        path = self.path(task)
        self._refuse_while_open(task)
        number = 1
        try:
            while is_present(target := path.with_name(f"{path.name}.aside-{number}")):
                number += 1
            path.rename(target)
        except OSError as error:
            raise access_failure(
                f"cannot set the state {path} of task {task} aside", path.parent, error
            ) from error
        return str(target)

    def stage(self, task: TaskId) -> RocksStaged:
        """Start a copy of a state. Raises ConfigError if the directory is not writable."""
        return RocksStaged(self.path(task))

    def _limit_write_buffers(self) -> None:
        """After a write to any state: begin to flush the largest write buffer if all take too much. Any thread."""
        if self._memory.exceeded:
            stores = self._stores()
            chosen = self._memory.to_flush([store.write_buffer_bytes() for store in stores])
            if chosen is not None:
                stores[chosen].begin_flush()

    def _refuse_while_open(self, task: TaskId) -> None:
        """Raise ConfigError if any process has the state open. Does not change the state.

        Closing any descriptor of the lock file releases this process's own lock on it. So the file is opened only if
        none of this process's stores has the state open.
        """
        path = self.path(task)
        mine = self._open.get(path)
        try:
            held = (mine is not None and not mine.closed) or _locked(path)
        except OSError as error:
            raise _unreadable(path, task, error) from error
        if held:
            raise lock_failure(path, task)


def state_directories(root: Path) -> list[Path]:
    """The state directory, and those that `--processes` makes in it.

    Raises InputError if it is not a directory, ConfigError if it cannot be read.
    """
    try:
        return [root, *sorted(entry for entry in root.iterdir() if entry.name.startswith("process."))]
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else "is not a directory"
        raise InputError(
            f"the state directory {root} {what}",
            hint="run this on the worker's machine, or give the worker's --state-dir",
        ) from error
    except OSError as error:
        raise access_failure(f"the state directory {root} cannot be read", root, error) from error


def _locked(path: Path) -> bool:
    """Whether another process holds RocksDB's lock. Raises OSError if the lock file cannot be opened."""
    try:
        file = (path / "LOCK").open("r+b")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _unreadable(path: Path, task: TaskId, error: OSError) -> ConfigError:
    return access_failure(f"the state {path} of task {task} cannot be read", path, error)
