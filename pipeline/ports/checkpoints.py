"""The store of checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

__all__ = ["CheckpointStore", "StoredObject"]


class StoredObject(NamedTuple):
    """An object in a checkpoint store. `modified_ms`: when it was last written, by the store's clock."""

    name: str
    size: int
    modified_ms: int


class CheckpointStore(Protocol):
    """Objects by name, parts separated by slashes. Threads may share it.

    Every call may raise CheckpointStoreError: it does not answer in time, refuses, or is full.
    """

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:
        """Write an object, whole or not at all, durably; `size` bytes. May raise whatever `content` raises."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """An object's content in pieces of a few MiB. Raises DamagedCheckpointError when it is not there."""
        ...

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`, which ends with a slash; in any order."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. One that is not there is ignored."""
        ...
