"""The ports to the local disk, `Store` and `CrashLog`, and to the object store, `CheckpointStore`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.core.names import TaskId

__all__ = [
    "CheckpointStore",
    "CrashLog",
    "Ending",
    "Snapshot",
    "SnapshotFile",
    "Staged",
    "StateUsage",
    "Store",
    "StoredObject",
    "Stores",
]


class SnapshotFile(NamedTuple):
    """A file of a state. Within one process, files with equal tokens have the same content."""

    name: str
    size: int
    token: Hashable


class Snapshot(Protocol):
    """A consistent copy of a state, kept next to the live one until it is closed."""

    @property
    def position(self) -> bytes: ...

    @property
    def files(self) -> Sequence[SnapshotFile]: ...

    def read(self, name: str) -> Iterator[bytes]:
        """The content of a file in pieces of a few MiB. Raises CorruptStateError."""
        ...

    def close(self) -> None:
        """Delete the snapshot. Never raises."""
        ...


class Staged(Protocol):
    """A state that is being copied to this disk, next to its final directory. Any thread may write."""

    def write(self, name: str, content: Iterable[bytes]) -> None:
        """Write one complete file. Raises CorruptStateError if it cannot be written, and what `content` raises."""
        ...

    def install(self) -> None:
        """Move it to its final directory, atomically. Raises CorruptStateError, also if a state exists there."""
        ...

    def discard(self) -> None:
        """Delete it. Does nothing after `install`. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class StateUsage:
    """The memory and the disk that an open state takes, and how often its writes were slowed down since it was opened.

    `block_cache_bytes`: of the cache that all states of a process share. `write_delays`, `write_stops`: the number of
    times, because flushes or compactions were behind.
    """

    memtable_bytes: int
    table_reader_bytes: int
    block_cache_bytes: int
    sst_bytes: int
    pending_compaction_bytes: int
    write_delays: int
    write_stops: int


class Store(Protocol):
    """The applied state of one task. Raises CorruptStateError if a write or a read fails."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys with this prefix from `start` on, in byte order, from a consistent view. Never the position."""
        ...

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Write the values and the applied position atomically. None deletes a key."""
        ...

    def clear(self, position: bytes, prefixes: Sequence[bytes] = ()) -> None:
        """Delete the values whose keys have one of these prefixes, or all, and write the applied position, atomically.

        No prefix consists of 0xff bytes only.
        """
        ...

    def position(self) -> bytes | None:
        """The last applied position; None if the store is empty."""
        ...

    def row(self, key: bytes) -> tuple[bytes | None, bytes | None] | None:
        """The position and the value of a key, which is at least as new; None if the state was closed.

        Any thread may call this.
        """
        ...

    def first_row(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """The first row with this prefix from `start` on; None if there is none, or if the state was closed.

        Any thread may call this.
        """
        ...

    def snapshot(self) -> Snapshot:
        """A snapshot of the values and the position. May run concurrently with reads and an `apply`.

        Raises CorruptStateError, also if the state is empty or was closed.
        """
        ...

    def usage(self) -> StateUsage | None:
        """Its use of memory and disk; None if it was closed. Any thread may call this, and it never raises."""
        ...

    def close(self) -> None: ...


class Stores(Protocol):
    """Opens, lists and destroys the local states of tasks."""

    def claim(self, app: str) -> None:
        """Claim the local states of an app for this worker, before the start can disturb other workers.

        Deletes the snapshots, the staged states and the detached states that an earlier process left.
        Raises ConfigError if another worker has claimed them, or if the directory is not writable.
        """
        ...

    def release(self, app: str) -> None:
        """Release a claim. Does nothing without one. The end of the process also releases it."""
        ...

    def open(self, task: TaskId) -> Store:
        """Open or create a state. Raises CorruptStateError, or ConfigError if another process has it open."""
        ...

    def exists(self, task: TaskId) -> bool:
        """Whether there is a state. Raises ConfigError if its directory cannot be read."""
        ...

    def put_away(self, task: TaskId) -> Callable[[], None]:
        """Detach a state from its directory atomically. The returned function deletes it.

        The function may run on any thread and may take long. If it never runs, the next `claim` deletes the state.
        Both raise ConfigError if the state is open or cannot be moved or deleted.
        """
        ...

    def destroy(self, task: TaskId) -> None:
        """Delete a state: `put_away` and its function. Does nothing if there is no state."""
        ...

    def set_aside(self, task: TaskId) -> str:
        """Move an unusable state out of its directory, unchanged. Returns its new location."""
        ...

    def stage(self, task: TaskId) -> Staged:
        """Start a copy of a state. Deletes the rest of an earlier attempt. Raises ConfigError."""
        ...


class StoredObject(NamedTuple):
    """An object in a checkpoint store. `modified_ms`: the time of its last write, by the store's clock."""

    name: str
    size: int
    modified_ms: int


class CheckpointStore(Protocol):
    """Stores objects under names whose parts are separated by slashes. Thread-safe.

    Every call may raise CheckpointStoreError: the store does not answer in time, refuses the request, or is full.
    """

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:
        """Write an object of `size` bytes, atomically and durably. Also raises what `content` raises."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """The content of an object in pieces of a few MiB. Raises DamagedCheckpointError if it does not exist."""
        ...

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`, in any order. `prefix` ends with a slash."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. Names that do not exist are ignored."""
        ...


class Ending(NamedTuple):
    """How the previous process on this disk ended. `process`: its name.

    `left`: whether it closed its log. `place`, `first`, `last`: the records that it was handling; `place` is empty if
    there were none. `thread`: its processing thread. `trace`: the output of the fault handler; empty if there was none.
    """

    process: str
    left: bool
    place: bytes
    first: int
    last: int
    thread: int
    trace: str


class CrashLog(Protocol):
    """A small log next to the local states of an app. It survives the end of the process, not the loss of the disk.

    Call `previous`, `load` and `save` before `begin`. All calls come from the processing thread of the worker that
    has claimed the states. Raises ConfigError if the log cannot be written.
    """

    def previous(self, app: str) -> Ending | None:
        """How the previous process ended; None if there was none."""
        ...

    def load(self) -> bytes:
        """The bytes of the last `save`; empty if there was none."""
        ...

    def save(self, data: bytes) -> None:
        """Replace the saved bytes atomically; they survive a power loss."""
        ...

    def begin(self, process: str) -> None:
        """Discard the record of the previous process, and start recording this one."""
        ...

    def handling(self, place: bytes, first: int, last: int) -> None:
        """Record that the handling of `first` to `last` begins. Survives the process, not a power loss."""
        ...

    def handled(self) -> None:
        """Record that the handling ended."""
        ...

    def leave(self) -> None:
        """Record an orderly exit of this process. Does nothing before `begin`."""
        ...
