"""A checkpoint store in memory: `MemoryCheckpointStore`, with the ways in which a store fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.errors import CheckpointStoreError, DamagedCheckpointError
from pipeline.ports import StoredObject
from pipeline.testing.faults import Faults

__all__ = ["MemoryCheckpointStore"]

_PIECE_BYTES = 64 * 1024


class MemoryCheckpointStore:
    """`ports.CheckpointStore` in memory. `now_ms`: the time at which objects are written.

    `away`: while it is an error, every call raises it.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.faults = Faults()
        self.away: CheckpointStoreError | None = None
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:  # noqa: ARG002 (any size is one piece)
        with self._at("put", name):
            data = b"".join(content)
            with self._lock:
                self._objects[name] = (data, self._now_ms())

    def get(self, name: str) -> Iterator[bytes]:
        with self._at("get", name):
            with self._lock:
                found = self._objects.get(name)
            if found is None:
                raise DamagedCheckpointError(f"object {name} is not in the checkpoint store")
            data = found[0]
            for at in range(0, len(data), _PIECE_BYTES):
                yield data[at : at + _PIECE_BYTES]

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with self._at("objects", prefix):
            with self._lock:
                found = sorted(self._objects.items())
            for name, (data, modified_ms) in found:
                if name.startswith(prefix):
                    yield StoredObject(name, len(data), modified_ms)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            with self._at("delete", name), self._lock:
                self._objects.pop(name, None)

    def fail_next(
        self, call: str, error: BaseException, *, after: bool = False, where: str | None = None
    ) -> None:
        """Let the next `put`, `get`, `objects` or `delete` (of the object `where`) raise `error`."""
        self.faults.order(call, error, after=after, where=where)

    @contextmanager
    def _at(self, call: str, where: str) -> Iterator[None]:
        if self.away is not None:
            raise self.away
        with self.faults.at(call, where):
            yield

    def names(self) -> list[str]:
        """Everything that is there, for a test to choose from."""
        with self._lock:
            return sorted(self._objects)

    def damage(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change an object at rest, as a bad disk does; its age stays."""
        with self._lock:
            data, modified_ms = self._objects[name]
            self._objects[name] = (change(data), modified_ms)
