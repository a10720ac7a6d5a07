"""The applied state of one task in RocksDB: `RocksStore`, and `RocksView`, which only reads.

Guarantees that the state on disk is always the result of a complete `apply`: each is one write batch in the write-ahead
log, with the position included. The log is not synced, because the journal is the durable log: a machine that loses its
last batches replays them. A failed read or write is raised; it never looks like a missing key.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rocksdict import Rdict, RdictIter, WriteBatch

from pipeline.errors import CorruptStateError, InvariantError
from pipeline.ports import StateUsage
from pipeline.rocksdb.errors import use_failure
from pipeline.rocksdb.snapshots import RocksSnapshot, take_snapshot

__all__ = ["RocksStore", "RocksView"]

_POSITION = b"\x00\x00\x00\x00position"
_FIRST_USER_KEY = b"\x00\x00\x00\x01"  # table ids have four bytes and are never zero
_LAST_TABLE = b"\xff\xff\xff\xff"
_STALLS = re.compile(r"(total-\w+): (\d+)")


class RocksView:
    """One state, read-only."""

    def __init__(self, database: Rdict, path: Path) -> None:
        self._database = database
        self._path = path
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self.closed = False

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise use_failure(self._path, "read", error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            values: Any = self._database.get(list(keys))
        except Exception as error:
            raise use_failure(self._path, "read", error) from error
        return list(values)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys with this prefix from `start` on, in byte order, from a consistent view. Never the position."""
        scan = self._new_scan(prefix, start)
        self._scans.add(scan)
        return scan

    def _new_scan(self, prefix: bytes, start: bytes) -> _Scan:
        try:
            iterator = self._database.iter()
            iterator.seek(max(prefix, start, _FIRST_USER_KEY))
        except Exception as error:
            raise use_failure(self._path, "scanned", error) from error
        return _Scan(iterator, prefix, self._path)

    def position(self) -> bytes | None:
        return self.get(_POSITION)

    def figure(self, name: str) -> str:
        """The value of a RocksDB property, for measurements; empty if the property does not exist."""
        return str(self._database.property_value(name) or "")

    def close(self) -> None:
        """Release the directory. Running scans end, because an open iterator would keep the lock."""
        for scan in list(self._scans):
            scan.end()
        self.closed = True
        try:
            self._database.close()
        except Exception as error:
            # The client repeats an earlier write error here. Applied batches are in the write-ahead log anyway.
            raise use_failure(self._path, "closed", error) from error


class RocksStore(RocksView):
    """`ports.Store`: one state, for reading and writing. Reads and `snapshot` may run concurrently with one `apply`."""

    def __init__(self, database: Rdict, path: Path, written: Callable[[], None]) -> None:
        super().__init__(database, path)
        self._written = written  # called after each write
        # A snapshot in progress would keep the database open and locked.
        self._ending = threading.Lock()

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Write the values and the position atomically. None deletes a key."""
        batch = WriteBatch(raw_mode=True)
        for key, value in writes.items():
            if key < _FIRST_USER_KEY:
                raise InvariantError(f"key {key!r} has no table id")
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._write(batch, position)

    def clear(self, position: bytes, prefixes: Sequence[bytes] = ()) -> None:
        """Delete the values with these prefixes, or all, and write the position, atomically."""
        batch = WriteBatch(raw_mode=True)
        for prefix in prefixes:
            batch.delete_range(prefix, _after(prefix))
        if prefixes:
            self._write(batch, position)
            return
        batch.delete_range(_FIRST_USER_KEY, _LAST_TABLE)
        for key, _ in self.scan(_LAST_TABLE):  # the range excludes its end
            batch.delete(key)
        self._write(batch, position)

    def row(self, key: bytes) -> tuple[bytes | None, bytes | None] | None:
        """The position and the value of a key, which is at least as new; None if the state was closed."""
        with self._ending:  # the client would refuse to close a database during a request
            return None if self.closed else (self.position(), self.get(key))

    def first_row(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """The first row with this prefix from `start` on; None if there is none, or if the state was closed."""
        with self._ending:
            if self.closed:
                return None
            scan = self._new_scan(prefix, start)
            found = next(scan, None)
            scan.end()
            return found

    def snapshot(self) -> RocksSnapshot:
        """A snapshot of the values and the position. Raises CorruptStateError, also if the state was closed."""
        with self._ending:
            if self.closed:
                raise CorruptStateError(f"the state {self._path} is closed")
            try:
                return take_snapshot(self._database, self._path, _POSITION)
            except CorruptStateError:
                raise
            except Exception as error:
                raise use_failure(self._path, "copied", error) from error

    def write_buffer_bytes(self) -> int:
        """The size of the write buffer; 0 if the state is closed or busy. Any thread may call this."""
        if not self._ending.acquire(blocking=False):
            return 0
        try:
            return 0 if self.closed else self._number("rocksdb.cur-size-active-mem-table")
        finally:
            self._ending.release()

    def begin_flush(self) -> None:
        """Begin to write the write buffer to a table file. Does nothing if the state is closed or busy.

        Any thread may call this. A flush that fails is reported by the next write.
        """
        if not self._ending.acquire(blocking=False):
            return
        try:
            if not self.closed:
                self._database.flush(wait=False)
        except Exception:  # noqa: BLE001 - the client raises plain exceptions, and the next write raises it again
            return
        finally:
            self._ending.release()

    def usage(self) -> StateUsage | None:
        """The use of memory and disk, by RocksDB's properties; None if the state is closed. Takes about 50 µs."""
        with self._ending:  # the client would refuse to close a database during a request
            if self.closed:
                return None
            stalls = dict(_STALLS.findall(self.figure("rocksdb.cf-write-stall-stats")))
            return StateUsage(
                memtable_bytes=self._number("rocksdb.size-all-mem-tables"),
                table_reader_bytes=self._number("rocksdb.estimate-table-readers-mem"),
                block_cache_bytes=self._number("rocksdb.block-cache-usage"),
                sst_bytes=self._number("rocksdb.total-sst-files-size"),
                pending_compaction_bytes=self._number("rocksdb.estimate-pending-compaction-bytes"),
                write_delays=int(stalls.get("total-delays", 0)),
                write_stops=int(stalls.get("total-stops", 0)),
            )

    def _number(self, name: str) -> int:
        return int(self.figure(name) or 0)

    def close(self) -> None:
        """Release the directory. Running scans end; a snapshot in progress is completed first."""
        with self._ending:
            super().close()

    def _write(self, batch: WriteBatch, position: bytes) -> None:
        batch.put(_POSITION, position)
        try:
            self._database.write(batch)
        except Exception as error:
            raise use_failure(self._path, "written", error) from error
        self._written()


def _after(prefix: bytes) -> bytes:
    """The first key after all keys with a prefix."""
    end = int.from_bytes(prefix, "big") + 1
    return end.to_bytes(len(prefix), "big")


class _Scan:
    """An iterator that distinguishes the end from an unreadable block. The client's `items` does not.

    It compares prefixes itself, because the client frees an upper bound that its iterator still uses.
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
            raise use_failure(self._path, "scanned", error) from error
        self._iterator = None
        raise StopIteration

    def end(self) -> None:
        self._iterator = None
