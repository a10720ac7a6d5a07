"""Storage in memory that outlives a process that crashes.

`MemoryStores` has the states of tasks and `MemoryCrashLog` the crash log of one disk. `MemoryCheckpointStore` is the
object store of checkpoints. Tests choose how they fail.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from pipeline.core.names import TaskId
from pipeline.errors import (
    CheckpointStoreError,
    ConfigError,
    CorruptStateError,
    DamagedCheckpointError,
    InvariantError,
)
from pipeline.ports import Ending, SnapshotFile, StateUsage, StoredObject
from pipeline.testing.faults import Faults

__all__ = [
    "MemoryCheckpointStore",
    "MemoryCrashLog",
    "MemorySnapshot",
    "MemoryStaged",
    "MemoryStore",
    "MemoryStores",
]

_FIRST_USER_KEY = b"\x00\x00\x00\x01"
_KEPT_BATCHES = 64  # how far back `crash` can lose what was applied
_FILES = 4  # that a snapshot's values are spread over, so that some are the same in the next one
_POSITION_FILE = "CURRENT"

_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class _State:
    values: dict[bytes, bytes] = field(default_factory=dict)
    position: bytes | None = None
    # What each of the last batches replaced, so that a machine's crash can take them back.
    replaced: deque[tuple[dict[bytes, bytes | None], bytes | None]] = field(
        default_factory=lambda: deque(maxlen=_KEPT_BATCHES)
    )
    corrupt: bool = False


class MemoryStores:
    """`ports.Stores` in memory, with the ways a disk fails."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._states: dict[TaskId, _State] = {}
        self._open: dict[TaskId, MemoryStore] = {}
        self._aside: dict[str, _State] = {}

    def claim(self, app: str) -> None:
        """Only this process has the memory."""
        with self.faults.at("claim", app):
            return

    def release(self, app: str) -> None:
        """Nothing is held."""

    def open(self, task: TaskId) -> MemoryStore:
        if task in self._open:
            raise ConfigError(f"the state of task {task} is open already")
        with self.faults.at("open", str(task)):
            state = self._states.setdefault(task, _State())
            if state.corrupt:
                raise CorruptStateError(f"the state of task {task} is corrupt")
            store = MemoryStore(self, task, state)
        self._open[task] = store
        return store

    def exists(self, task: TaskId) -> bool:
        return task in self._states

    def put_away(self, task: TaskId) -> Callable[[], None]:
        self._refuse_while_open(task)
        with self.faults.at("put_away", str(task)):
            self._states.pop(task)
        return lambda: None

    def destroy(self, task: TaskId) -> None:
        self._refuse_while_open(task)
        self._states.pop(task, None)

    def set_aside(self, task: TaskId) -> str:
        self._refuse_while_open(task)
        number = 1
        while (place := f"memory:{task}.aside-{number}") in self._aside:
            number += 1
        self._aside[place] = self._states.pop(task)
        return place

    def stage(self, task: TaskId) -> MemoryStaged:
        return MemoryStaged(self, task)

    def install(self, task: TaskId, files: Mapping[str, bytes]) -> None:
        """A state has come from elsewhere."""
        if task in self._states:
            raise InvariantError(f"the state of task {task} is replaced by one from elsewhere")
        values = {k: v for name, data in files.items() if name != _POSITION_FILE for k, v in _decode(data)}
        self._states[task] = _State(values, files.get(_POSITION_FILE))

    def fail_next(
        self, call: str, error: BaseException, *, after: bool = False, task: TaskId | None = None
    ) -> None:
        """Let the next call raise `error`, before it acts or `after`.

        Calls: open, get, scan, apply, snapshot, put_away; write and install of a state from elsewhere.
        """
        self.faults.order(call, error, after=after, where=None if task is None else str(task))

    def crash(self, *, lost_batches: int = 0) -> None:
        """End the process: every handle is dead, every lock free, what was applied is still there.

        `lost_batches`: the machine went down, too, and took that many of each task's last batches with it.
        """
        for store in self._open.values():
            store.kill()
        self._open.clear()
        for state in self._states.values():
            for _ in range(min(lost_batches, len(state.replaced))):
                values, position = state.replaced.pop()
                _write(state, values)
                state.position = position

    def corrupt(self, task: TaskId) -> None:
        """Damage the state at rest: it cannot be opened any more."""
        self._states[task].corrupt = True

    def positions(self) -> dict[TaskId, bytes]:
        """The stored position of each task that has one."""
        return {task: state.position for task, state in self._states.items() if state.position is not None}

    def contents(self, task: TaskId) -> dict[bytes, bytes]:
        """What is stored, for a test to compare; empty when there is nothing."""
        state = self._states.get(task)
        return dict(state.values) if state else {}

    def closed(self, task: TaskId) -> None:
        """A handle was closed."""
        self._open.pop(task, None)

    def _refuse_while_open(self, task: TaskId) -> None:
        if task in self._open:
            raise ConfigError(f"the state of task {task} is open")


class MemoryStore:
    """`ports.Store`: one handle on one state."""

    def __init__(self, stores: MemoryStores, task: TaskId, state: _State) -> None:
        self._stores = stores
        self._task = task
        self._state: _State | None = state

    def get(self, key: bytes) -> bytes | None:
        with self._stores.faults.at("get", str(self._task)):
            return self._alive().values.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._stores.faults.at("get", str(self._task)):
            values = self._alive().values
            return [values.get(key) for key in keys]

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._stores.faults.at("scan", str(self._task)):
            values = self._alive().values
            return iter(
                sorted(item for item in values.items() if item[0].startswith(prefix) and item[0] >= start)
            )

    def apply(self, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        state = self._alive()
        for key in writes:
            if key < _FIRST_USER_KEY:
                raise InvariantError(f"key {key!r} has no table id")
        with self._stores.faults.at("apply", str(self._task)):
            state.replaced.append(({key: state.values.get(key) for key in writes}, state.position))
            _write(state, writes)
            state.position = position

    def clear(self, position: bytes, prefixes: Sequence[bytes] = ()) -> None:
        chosen = tuple(prefixes) or (b"",)
        self.apply(dict.fromkeys(key for key in self._alive().values if key.startswith(chosen)), position)

    def position(self) -> bytes | None:
        return self._alive().position

    def row(self, key: bytes) -> tuple[bytes | None, bytes | None] | None:
        return None if self._state is None else (self._state.position, self._state.values.get(key))

    def first_row(self, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        if self._state is None:
            return None
        keys = [key for key in self._state.values if key.startswith(prefix) and key >= start]
        return (min(keys), self._state.values[min(keys)]) if keys else None

    def snapshot(self) -> MemorySnapshot:
        with self._stores.faults.at("snapshot", str(self._task)):
            if self._state is None or self._state.position is None:
                raise CorruptStateError(f"the state of task {self._task} is closed or empty")
            return MemorySnapshot(self._state.values, self._state.position)

    def usage(self) -> StateUsage | None:
        """The values count as one memtable."""
        if self._state is None:
            return None
        return StateUsage(sum(len(k) + len(v) for k, v in self._state.values.items()), 0, 0, 0, 0, 0, 0)

    def close(self) -> None:
        if self._state is not None:
            self._stores.closed(self._task)
            self._state = None

    def kill(self) -> None:
        """The process that held this handle is gone."""
        self._state = None

    def _alive(self) -> _State:
        if self._state is None:
            raise InvariantError(f"the state of task {self._task} is used after it was closed")
        return self._state


class MemorySnapshot:
    """`ports.Snapshot`: values in a few files, each of which changes only with its own values."""

    def __init__(self, values: Mapping[bytes, bytes], position: bytes) -> None:
        spread: list[list[tuple[bytes, bytes]]] = [[] for _ in range(_FILES)]
        for item in sorted(values.items()):
            spread[sum(item[0]) % _FILES].append(item)
        self._data = {f"{n:06d}.sst": _encoder.encode(items) for n, items in enumerate(spread)}
        self._data[_POSITION_FILE] = position
        self.position = position
        self.files = [SnapshotFile(name, len(data), data) for name, data in self._data.items()]

    def read(self, name: str) -> Iterator[bytes]:
        yield self._data[name]

    def close(self) -> None:
        """Nothing is held."""


class MemoryStaged:
    """`ports.Staged`."""

    def __init__(self, stores: MemoryStores, task: TaskId) -> None:
        self._stores = stores
        self._task = task
        self._files: dict[str, bytes] = {}

    def write(self, name: str, content: Iterable[bytes]) -> None:
        with self._stores.faults.at("write", str(self._task)):
            self._files[name] = b"".join(content)

    def install(self) -> None:
        with self._stores.faults.at("install", str(self._task)):
            self._stores.install(self._task, self._files)

    def discard(self) -> None:
        self._files = {}


_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


def _write(state: _State, writes: Mapping[bytes, bytes | None]) -> None:
    for key, value in writes.items():
        if value is None:
            state.values.pop(key, None)
        else:
            state.values[key] = value


_THREAD = 1
_FOREIGN = 2


class MemoryCrashLog:
    """`ports.CrashLog`. It outlives the worker, as files outlive a process; `crash` does what a fatal signal does."""

    def __init__(self) -> None:
        self._process = ""
        self._begun = False
        self._place = b""
        self._span = (0, 0)
        self._left = False
        self._trace = ""
        self._saved: dict[str, bytes] = {}
        self._app = ""

    def crash(self, reason: str = "Segmentation fault", *, here: bool = True) -> None:
        """The fault handler's trace of a fatal signal. `here`: the processing thread got it."""
        thread = _THREAD if here else _FOREIGN
        self._trace = (
            f"Fatal Python error: {reason}\n\nCurrent thread 0x{thread:016x} (most recent call first):\n"
            '  File "library.py", line 1 in crash\n'
        )

    def previous(self, app: str) -> Ending | None:
        self._app, self._begun = app, False
        if not self._process:
            return None
        return Ending(self._process, self._left, self._place, *self._span, _THREAD, self._trace)

    def load(self) -> bytes:
        return self._saved.get(self._app, b"")

    def save(self, data: bytes) -> None:
        self._saved[self._app] = data

    def begin(self, process: str) -> None:
        self._process, self._begun = process, True
        self._place, self._span, self._left, self._trace = b"", (0, 0), False, ""

    def handling(self, place: bytes, first: int, last: int) -> None:
        if not self._begun:
            raise InvariantError("records are handled before the crash log has begun")
        if not self._trace:  # as in `handled`
            self._place, self._span = place, (first, last)

    def handled(self) -> None:
        if not self._trace:  # a process that is gone does nothing more
            self._place = b""

    def leave(self) -> None:
        if self._begun:
            self._left, self._begun = True, False


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
