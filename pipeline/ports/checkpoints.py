"""The port to an object store for checkpoints: `CheckpointStore`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ["CheckpointStore", "StoredObject"]


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
