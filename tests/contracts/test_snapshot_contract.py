"""What checkpoints take from a local state, and how one that was brought from elsewhere takes its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import CorruptStateError, InvariantError
from pipeline.ports import Snapshot, Stores
from pipeline.rocksdb.rocks import RocksStores

TASK = TaskId("app", "group", 3)
OTHER = TaskId("app", "group", 4)
TABLE = b"\x00\x00\x00\x01"


def rows(number: int, value: bytes) -> dict[bytes, bytes | None]:
    return {TABLE + b"%06d" % n: value for n in range(number)}


def bring(stores: Stores, task: TaskId, snapshot: Snapshot) -> None:
    staged = stores.stage(task)
    for file in snapshot.files:
        staged.write(file.name, snapshot.read(file.name))
    staged.install()


def test_a_snapshot_brings_a_state_to_another_place(stores: Stores) -> None:
    """Values, deletions and position as of one moment, whatever is applied later."""
    store = stores.open(TASK)
    store.apply(rows(1_000, b"old"), b"p1")
    store.apply({TABLE + b"000007": None, TABLE + b"000008": b"new"}, b"p2")
    snapshot = store.snapshot()
    store.apply(rows(1_000, b"newer"), b"p3")
    assert snapshot.position == b"p2"
    bring(stores, OTHER, snapshot)
    snapshot.close()
    copy = stores.open(OTHER)
    assert copy.position() == b"p2"
    assert copy.get_many([TABLE + b"000006", TABLE + b"000007", TABLE + b"000008"]) == [b"old", None, b"new"]
    assert len(list(copy.scan(TABLE))) == 999
    copy.apply({TABLE + b"x": b"y"}, b"p3")
    copy.close()
    assert store.get(TABLE + b"000006") == b"newer"
    store.close()


def test_sizes_are_those_of_the_files(stores: Stores) -> None:
    """A manifest names them before they are read."""
    store = stores.open(TASK)
    store.apply(rows(10_000, bytes(100)), b"p1")
    snapshot = store.snapshot()
    assert {f.name: f.size for f in snapshot.files} == {
        f.name: sum(map(len, snapshot.read(f.name))) for f in snapshot.files
    }
    snapshot.close()
    store.close()


def test_files_that_did_not_change_are_known_by_their_tokens(stores: Stores) -> None:
    """Hashing a whole state every minute would cost more than the state is worth."""
    store = stores.open(TASK)
    store.apply(rows(10_000, b"old"), b"p1")
    first, position = store.snapshot(), b"p2"
    store.apply({}, position)
    second = store.snapshot()
    contents = {f.token: b"".join(first.read(f.name)) for f in first.files}
    shared = [f for f in second.files if f.token in contents]
    assert shared
    assert all(contents[f.token] == b"".join(second.read(f.name)) for f in shared)
    assert {f.name for f in second.files} - {f.name for f in shared}
    first.close()
    second.close()
    store.close()


def test_an_empty_or_closed_state_has_no_snapshot(stores: Stores) -> None:
    """A task may be dropped while its checkpoint is being taken."""
    store = stores.open(TASK)
    with pytest.raises(CorruptStateError):
        store.snapshot()
    store.apply({}, b"p1")
    store.close()
    with pytest.raises(CorruptStateError):
        store.snapshot()


def test_a_state_from_elsewhere_replaces_nothing(stores: Stores) -> None:
    """The caller must set aside or delete the old state first."""
    store = stores.open(TASK)
    store.apply(rows(3, b"x"), b"p1")
    snapshot = store.snapshot()
    with pytest.raises(InvariantError):
        bring(stores, TASK, snapshot)
    snapshot.close()
    store.close()


def test_what_was_staged_counts_only_once_it_is_installed(stores: Stores) -> None:
    """A process that dies while it downloads leaves nothing that looks like a state."""
    store = stores.open(TASK)
    store.apply(rows(3, b"x"), b"p1")
    snapshot = store.snapshot()
    stores.stage(OTHER).write("000009.sst", [b"the beginning of a fi"])
    assert not stores.exists(OTHER)
    bring(stores, OTHER, snapshot)  # begins again
    assert stores.exists(OTHER)
    copy = stores.open(OTHER)
    assert copy.position() == b"p1"
    copy.close()
    dropped = stores.stage(TASK)
    dropped.write("a", [b"x"])
    dropped.discard()
    snapshot.close()
    store.close()


def test_an_error_while_content_arrives_is_passed_on(stores: Stores) -> None:
    """The store's own words say what is wrong with it."""

    def failing() -> Iterator[bytes]:
        yield b"x"
        raise InvariantError("in the middle")

    with pytest.raises(InvariantError, match="in the middle"):
        stores.stage(OTHER).write("a", failing())


def test_snapshots_beside_writes_and_a_close_leave_the_state_usable(tmp_path: Path) -> None:
    """A checkpoint object that outlived its database would keep the lock, and the task's next start would fail."""
    stores = RocksStores(tmp_path, 8 << 20)
    for turn in range(5):
        store = stores.open(TASK)
        store.apply(rows(2_000, b"%d" % turn), b"p%d" % turn)
        seen: list[bytes] = []

        def take(store: object = store, seen: list[bytes] = seen) -> None:
            while True:
                try:
                    snapshot = store.snapshot()  # type: ignore[attr-defined]
                except CorruptStateError:
                    return
                seen.append(snapshot.position)
                snapshot.close()

        taker = threading.Thread(target=take)
        taker.start()
        for number in range(50):
            store.apply(rows(200, b"%d" % number), b"q%d" % number)
        store.close()
        taker.join()
    assert not list(tmp_path.glob("app/group/.checkpoints/*"))


def test_what_a_dead_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Hard links to old files would keep their bytes on the disk."""
    stores = RocksStores(tmp_path, 8 << 20)
    stores.claim("app")
    store = stores.open(TASK)
    store.apply(rows(3, b"x"), b"p1")
    store.snapshot()
    stores.stage(OTHER).write("a", [b"x"])
    store.close()
    stores.release("app")
    left = [path.name for path in tmp_path.glob("app/group/.*/*")]
    assert len(left) == 2
    RocksStores(tmp_path, 8 << 20).claim("app")
    assert not list(tmp_path.glob("app/group/.*"))
    assert (tmp_path / "app" / "group" / "3" / "CURRENT").exists()
