"""Complete states on the same disk: `RocksSnapshot` to upload, `RocksStaged` to install, `put_away` to delete.

All are in hidden directories next to the states, so that SST files can be hard links and a rename is atomic. The next
start deletes those that a dead process left.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import AccessType, Checkpoint, Options, Rdict

from pipeline.directories import is_present
from pipeline.errors import ConfigError, CorruptStateError, InvariantError
from pipeline.ports import SnapshotFile
from pipeline.rocksdb.errors import access_failure, disk_hint, why

__all__ = ["RocksSnapshot", "RocksStaged", "put_away", "remove_leftovers", "take_snapshot"]

_SNAPSHOTS = ".checkpoints"
_STAGED = ".restoring"
_PUT_AWAY = ".removed"
_PIECE_BYTES = 8 * 1024 * 1024

_numbers = itertools.count(1)


class RocksSnapshot:
    """`ports.Snapshot`: a directory of hard links."""

    def __init__(self, path: Path, position: bytes, files: Sequence[SnapshotFile]) -> None:
        self._path = path
        self.position = position
        self.files = files

    def read(self, name: str) -> Iterator[bytes]:
        """The content of a file in pieces of a few MiB."""
        try:
            with (self._path / name).open("rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise CorruptStateError(
                f"the snapshot {self._path / name} cannot be read: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Delete the snapshot. The next start deletes files that cannot be deleted now."""
        shutil.rmtree(self._path, ignore_errors=True)


def take_snapshot(database: Rdict, state: Path, position_key: bytes) -> RocksSnapshot:
    """A snapshot of an open database. The caller must not close the database before this returns.

    RocksDB's checkpoint object would keep the database open. After an exception of the client, no files remain.
    """
    path = state.parent / _SNAPSHOTS / f"{state.name}-{next(_numbers)}"
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        Checkpoint(database).create_checkpoint(str(path))
        # The database may change between two calls, so the position is read from the copy.
        files = [_file(file) for file in sorted(path.iterdir())]
        access = AccessType.read_only(error_if_log_file_exist=False)
        copy = Rdict(str(path), Options(raw_mode=True), access_type=access)
        try:
            position: bytes | None = copy.get(position_key)
        finally:
            copy.close()
        if position is None:
            raise CorruptStateError(f"the state {state} is empty")
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return RocksSnapshot(path, position, files)


def _file(path: Path) -> SnapshotFile:
    # A hard link has the same inode as its source, and RocksDB never writes to a linked file again.
    found = path.stat()
    return SnapshotFile(
        path.name, found.st_size, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    )


class RocksStaged:
    """`ports.Staged`: a directory that becomes the state."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path = state.parent / _STAGED / state.name
        try:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path.mkdir(parents=True)
        except OSError as error:
            raise access_failure(f"cannot create the directory {self._path}", self._path, error) from error

    def write(self, name: str, content: Iterable[bytes]) -> None:
        """Write one complete file, without fsync: after a crash of the machine, a damaged state is restored again."""
        pieces = iter(content)
        path = self._path / name
        try:
            file = path.open("xb", buffering=0)
        except OSError as error:
            raise _write_failure(path, error) from error
        with file:
            for piece in pieces:
                view = memoryview(piece)
                try:
                    while view:
                        view = view[file.write(view) :]
                except OSError as error:
                    raise _write_failure(path, error) from error

    def install(self) -> None:
        """Rename it to the directory of the state."""
        try:
            if is_present(self._state / "CURRENT"):
                raise InvariantError(f"{self._state} is replaced by a state from elsewhere")
            # A failed open may have left a directory without a state.
            shutil.rmtree(self._state, ignore_errors=True)
            self._path.rename(self._state)
        except OSError as error:
            raise _write_failure(self._state, error) from error

    def discard(self) -> None:
        """Delete it."""
        shutil.rmtree(self._path, ignore_errors=True)


def put_away(state: Path) -> Callable[[], None]:
    """Rename a state to `.removed` next to it, and return a function that deletes it. Both raise ConfigError.

    The rename is synced before the first file is deleted. Otherwise a crash of the machine could bring a part of the
    state back.
    """
    place = state.parent / _PUT_AWAY
    try:
        place.mkdir(exist_ok=True)
        while is_present(target := place / f"{state.name}-{next(_numbers)}"):
            pass  # left by an earlier process
        state.rename(target)
    except OSError as error:
        raise access_failure(f"cannot move the state {state} away", place, error) from error

    def remove() -> None:
        try:
            for directory in (place, state.parent):
                _sync(directory)
            shutil.rmtree(target)
        except OSError as error:
            raise ConfigError(
                f"cannot remove the state {target}, which is not needed any more: {why(target, error)}",
                hint="the next start of this worker tries again",
            ) from error

    return remove


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_leftovers(app_directory: Path) -> None:
    """Delete the leftovers of other processes. The caller must have claimed the directory.

    A directory that cannot be read keeps its leftovers. Its tasks report it when they are restored.
    """
    for name in (_SNAPSHOTS, _STAGED, _PUT_AWAY):
        with suppress(OSError):
            for path in app_directory.glob(f"*/{name}"):
                shutil.rmtree(path, ignore_errors=True)


def _write_failure(path: Path, error: OSError) -> CorruptStateError:
    return CorruptStateError(
        f"{path} cannot be written: {why(path, error)}",
        hint=disk_hint(path, error),
    )
