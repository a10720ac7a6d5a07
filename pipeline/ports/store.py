"""The local state of a task."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from pipeline.core.names import TaskId

__all__ = ["Snapshot", "SnapshotFile", "Staged", "Store", "Stores"]


class SnapshotFile(NamedTuple):
    """A file of a state. Two with equal tokens have the same content, for as long as the process lives."""

    name: str
    size: int
    token: Hashable


class Snapshot(Protocol):
    """A state as it was at one moment, kept beside the living one until it is closed."""

    @property
    def position(self) -> bytes: ...

    @property
    def files(self) -> Sequence[SnapshotFile]: ...

    def read(self, name: str) -> Iterator[bytes]:
        """A file's content in pieces of a few MiB. Raises CorruptStateError."""
        ...

    def close(self) -> None:
        """Remove it. Never raises."""
        ...


class Staged(Protocol):
    """A state that is being brought from elsewhere, beside the place where it will be. Any thread may write."""

    def write(self, name: str, content: Iterable[bytes]) -> None:
        """One file, whole. Raises CorruptStateError when it cannot be written, and whatever `content` raises."""
        ...

    def install(self) -> None:
        """Put it in its place in one step; there must be no state. Raises CorruptStateError."""
        ...

    def discard(self) -> None:
        """Remove it. Never raises; nothing happens once it is installed."""
        ...


class Store(Protocol):
    """The applied state of one task. Any failure to write or read raises CorruptStateError."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys with this prefix, from `start` on, in byte order, as of one moment. Never the position."""
        ...

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        """Write all values (None deletes) and the applied position, atomically."""
        ...

    def clear(self, position: bytes) -> None:
        """Remove every value and write the applied position, atomically."""
        ...

    def position(self) -> bytes | None:
        """The applied position as last written; None in an empty store."""
        ...

    def snapshot(self) -> Snapshot:
        """All of it, position included, as of one moment; beside reads and an `apply`.

        Raises CorruptStateError, also when the state is empty or was closed meanwhile.
        """
        ...

    def close(self) -> None: ...


class Stores(Protocol):
    """Opens, lists and destroys the local states of tasks."""

    def claim(self, app: str) -> None:
        """Take the states of an app for this worker, before anybody else's work is disturbed.

        Snapshots, staged states and those put away that a process has left behind are removed.
        Raises ConfigError when another worker has them, or when they could not be written.
        """
        ...

    def release(self, app: str) -> None:
        """Give up a claim; nothing happens when there is none. The end of the process does it, too."""
        ...

    def open(self, task: TaskId) -> Store:
        """Open or create. Raises CorruptStateError; ConfigError when another process has it open."""
        ...

    def exists(self, task: TaskId) -> bool: ...

    def put_away(self, task: TaskId) -> Callable[[], None]:
        """Take a state out of its place in one step; the call removes it, on any thread, and may take long.

        What a process puts away and does not remove is nobody's, and removed by the next `claim`. Both raise
        ConfigError: when the state is open, when it cannot be moved or removed.
        """
        ...

    def destroy(self, task: TaskId) -> None:
        """`put_away` and remove; nothing happens when there is no state."""
        ...

    def set_aside(self, task: TaskId) -> str:
        """Move a state that cannot be used out of the way, unchanged; where it is now."""
        ...

    def stage(self, task: TaskId) -> Staged:
        """Begin to bring a state; what an earlier attempt has left is removed. Raises ConfigError."""
        ...
