"""Keeps the applied state of tasks in RocksDB, one directory per task: `RocksStores` opens, `RocksStore` is one.

Promises that a state on disk is always one that was applied, whole: every `apply` is one write batch with the
position in it, in the write-ahead log. It is not synced, because the journal is the durable log: a machine
that loses its last batches replays them. Any failure to read or write is raised, never read as absence.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    WriteBatch,
)

from pipeline.core.names import TaskId
from pipeline.errors import (
    ConfigError,
    CorruptStateError,
    DamagedStateError,
    InvariantError,
    PipelineError,
)
from pipeline.state.snapshots import RocksSnapshot, RocksStaged, put_away, remove_leftovers, take_snapshot

__all__ = ["RocksStore", "RocksStores", "RocksView"]

_CLAIM = ".worker"
_POSITION = b"\x00\x00\x00\x00position"
_FIRST_USER_KEY = b"\x00\x00\x00\x01"  # table ids are four bytes and never zero
_LAST_TABLE = b"\xff\xff\xff\xff"
_ROWS = "default"  # the column family that RocksDB keeps everything in
_READ_ONLY_ATTEMPTS = 50
# After a crash, opening replays what is in the write buffers, task after task: the client holds the interpreter
# while it opens. This is about 60 ms for a full one. One of 16 MiB takes 250 ms; for a task that writes millions of
# rows at random it would save 6 % of CPU time and 30 % of the bytes written to disk.
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
_WAL_BYTES = 64 * 1024 * 1024


class RocksStores:
    """`ports.Stores` under one directory; all stores share one block cache."""

    def __init__(self, state_dir: Path, block_cache_bytes: int) -> None:
        self._root = state_dir
        self._cache = Cache(block_cache_bytes)
        self._open: weakref.WeakValueDictionary[Path, RocksStore] = weakref.WeakValueDictionary()
        self._claims: dict[str, weakref.finalize[..., RocksStores]] = {}

    def claim(self, app: str) -> None:
        """Lock `<state_dir>/<app>`, and remove copies that were left there.

        Raises ConfigError when another worker has it, or it is not writable.
        """
        if app in self._claims:
            return
        path = self._root / app / _CLAIM
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._root}: {error.strerror} ({error.filename})",
                hint="choose a directory that this user can write, with --state-dir or worker.state_dir",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 20, 0).decode().strip()
            os.close(file)
            raise ConfigError(
                f"the state directory {self._root} is in use by another worker of app {app}"
                + (f", process {holder}" if holder else ""),
                hint="stop that worker first, or give this one its own: --state-dir and --worker-id",
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._claims[app] = weakref.finalize(self, os.close, file)
        remove_leftovers(path.parent)

    def release(self, app: str) -> None:
        claim = self._claims.pop(app, None)
        if claim is not None:
            claim()

    def path(self, task: TaskId) -> Path:
        return self._root / task.app / task.group / str(task.partition)

    def open(self, task: TaskId) -> RocksStore:
        """Open or create. Raises CorruptStateError; ConfigError when it is open elsewhere or not writable."""
        path = self.path(task)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot create the state directory {path} of task {task}: {error.strerror}",
                hint="set worker.state_dir to a directory that this user can write",
            ) from error
        try:
            database = _open(path, self._cache)
        except Exception as error:
            raise _open_failure(path, task, error) from error
        store = RocksStore(database, path)
        self._open[path] = store
        return store

    def open_read_only(self, task: TaskId) -> RocksView:
        """The state as of now, for inspection; a worker may have it open and go on writing.

        Files that the worker's compactions remove while they are being opened make an attempt fail; it is
        made again. Raises ConfigError when there is no state, CorruptStateError.
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
                return RocksView(_open(path, self._cache, access), path)
            except Exception as error:
                attempt += 1
                if attempt == _READ_ONLY_ATTEMPTS or "No such file" not in str(error):
                    raise _open_failure(path, task, error) from error

    def exists(self, task: TaskId) -> bool:
        return (self.path(task) / "CURRENT").exists()

    def put_away(self, task: TaskId) -> Callable[[], None]:
        """Rename the state to where nobody looks for one; what removes it. Raises ConfigError when it is open.

        A deletion in place that ends half way leaves a directory that could be opened.
        """
        self._refuse_while_open(task)
        return put_away(self.path(task))

    def destroy(self, task: TaskId) -> None:
        """Remove the state; nothing happens when there is none. Raises ConfigError when it is open."""
        if self.path(task).exists():
            self.put_away(task)()

    def set_aside(self, task: TaskId) -> str:
        """Rename the state to the first free `<partition>.aside-<n>` beside it; where it is now."""
        path = self.path(task)
        self._refuse_while_open(task)
        number = 1
        while (target := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        try:
            path.rename(target)
        except OSError as error:
            raise ConfigError(
                f"cannot set the state {path} of task {task} aside: {error.strerror}"
            ) from error
        return str(target)

    def stage(self, task: TaskId) -> RocksStaged:
        """Begin to bring a state from elsewhere. Raises ConfigError when it cannot be written."""
        return RocksStaged(self.path(task))

    def _refuse_while_open(self, task: TaskId) -> None:
        """Raise when any process has the state open, without touching it.

        Closing a descriptor of the lock file takes away the lock that this very process may hold on it, so
        the file is tested only after our own stores have been ruled out.
        """
        path = self.path(task)
        mine = self._open.get(path)
        if (mine is not None and not mine.closed) or _locked(path):
            raise _lock_failure(path, task)


class RocksView:
    """One state, for reading."""

    def __init__(self, database: Rdict, path: Path) -> None:
        self._database = database
        self._path = path
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self.closed = False

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise _use_failure(self._path, "read", error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            values: Any = self._database.get(list(keys))
        except Exception as error:
            raise _use_failure(self._path, "read", error) from error
        return list(values)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys with this prefix, from `start` on, in byte order, as of this call; never the position."""
        try:
            iterator = self._database.iter()
            iterator.seek(max(prefix, start, _FIRST_USER_KEY))
        except Exception as error:
            raise _use_failure(self._path, "scanned", error) from error
        scan = _Scan(iterator, prefix, self._path)
        self._scans.add(scan)
        return scan

    def position(self) -> bytes | None:
        return self.get(_POSITION)

    def figure(self, name: str) -> str:
        """What RocksDB says of itself under the name of a property, for measurements; empty when it knows none."""
        return str(self._database.property_value(name) or "")

    def close(self) -> None:
        """Release the directory. Scans under way end: a living iterator would keep its lock."""
        for scan in list(self._scans):
            scan.end()
        self.closed = True
        try:
            self._database.close()
        except Exception as error:
            # It repeats an earlier write error. What was applied is in the write-ahead log all the same.
            raise _use_failure(self._path, "closed", error) from error


class RocksStore(RocksView):
    """`ports.Store`: one state, for reading and writing. Reads and `snapshot` may run beside one `apply`."""

    def __init__(self, database: Rdict, path: Path) -> None:
        super().__init__(database, path)
        self._ending = (
            threading.Lock()
        )  # a snapshot being taken would keep the database open, and its lock held

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Write all values (None deletes) and the position, atomically."""
        batch = WriteBatch(raw_mode=True)
        for key, value in writes.items():
            if key < _FIRST_USER_KEY:
                raise InvariantError(f"key {key!r} has no table id")
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._write(batch, position)

    def clear(self, position: bytes) -> None:
        """Remove every value and write the position, atomically."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_FIRST_USER_KEY, _LAST_TABLE)
        for key, _ in self.scan(_LAST_TABLE):  # a range excludes its end
            batch.delete(key)
        self._write(batch, position)

    def snapshot(self) -> RocksSnapshot:
        """All of it as of one moment. Raises CorruptStateError, also when it was closed meanwhile."""
        with self._ending:
            if self.closed:
                raise CorruptStateError(f"the state {self._path} is closed")
            try:
                return take_snapshot(self._database, self._path, _POSITION)
            except CorruptStateError:
                raise
            except Exception as error:
                raise _use_failure(self._path, "copied", error) from error

    def close(self) -> None:
        """Release the directory. Scans under way end; a snapshot that is being taken is waited for."""
        with self._ending:
            super().close()

    def _write(self, batch: WriteBatch, position: bytes) -> None:
        batch.put(_POSITION, position)
        try:
            self._database.write(batch)
        except Exception as error:
            raise _use_failure(self._path, "written", error) from error


class _Scan:
    """An iterator that tells the end from an unreadable block, which the client's own `items` does not.

    It compares prefixes itself: the client frees an upper bound while its iterator still uses it.
    """

    def __init__(self, iterator: RdictIter, prefix: bytes, path: Path) -> None:
        self._iterator: RdictIter | None = iterator
        self._prefix = prefix
        self._path = path

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        iterator = self._iterator
        if iterator is None:
            raise StopIteration
        try:
            if iterator.valid():
                key: bytes = iterator.key()
                if key.startswith(self._prefix):
                    value: bytes = iterator.value()
                    iterator.next()
                    return key, value
            else:
                iterator.status()
        except Exception as error:
            raise _use_failure(self._path, "scanned", error) from error
        self._iterator = None
        raise StopIteration

    def end(self) -> None:
        self._iterator = None


def _open(path: Path, cache: Cache, access: AccessType | None = None) -> Rdict:
    """With our options, also when there is a database: the client would read the rows' own from its last files.

    Those say nothing of a cache or a filter, so each state would have a cache of its own, and no filters.
    """
    options = _options(cache)
    families = {_ROWS: options} if (path / "CURRENT").exists() else None
    if access is None:
        return Rdict(str(path), options, column_families=families)
    return Rdict(str(path), options, column_families=families, access_type=access)


def _options(cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    # Index and filters count against the shared cache, so that memory is bounded whatever the state's size.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # The cache is made of shards of 512 KiB and more, none of which keeps a block that is larger. The one filter of a
    # file of a million keys is: it would be read again for every key, at 150 us instead of 2. So both are cut into
    # pieces, and of those only the list is held.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(32 * 1024)
    table.set_pin_top_level_index_and_filter(True)
    options = Options(raw_mode=True)  # the client's default mode unpickles what it finds on disk
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # What was written last has a filter, too: a row that is not there is looked for in it first.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.05)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_stats_dump_period_sec(0)
    return options


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


def _lock_failure(path: Path, task: TaskId) -> ConfigError:
    return ConfigError(
        f"the state {path} of task {task} is open in another process or already in this one",
        hint="stop the other process first",
    )


def _open_failure(path: Path, task: TaskId, error: Exception) -> PipelineError:
    text = str(error)
    lowered = text.lower()
    if "lock hold by" in lowered or "while lock file" in lowered:
        return _lock_failure(path, task)
    if "permission denied" in lowered or "no space left" in lowered or "read-only file system" in lowered:
        return ConfigError(
            f"the state {path} of task {task} cannot be opened: {text}",
            hint="make the directory writable and free some space, then start the worker again",
        )
    return CorruptStateError(
        f"the state {path} of task {task} cannot be opened: {text}",
        hint="it will be set aside and restored from the journal",
    )


def _use_failure(path: Path, done: str, error: Exception) -> CorruptStateError:
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
