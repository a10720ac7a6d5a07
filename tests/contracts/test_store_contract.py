"""What the applied state rests on: whole batches, in order, one owner, and failures that are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, CorruptStateError, InvariantError
from pipeline.ports import Stores
from pipeline.rocksdb.rocks import RocksStores
from tests.contracts.conftest import wait_until

TASK = TaskId("app", "group", 3)
TABLE = b"\x00\x00\x00\x01"

# Writes batch after batch, each of them the same number under many keys, until it is killed.
WRITER = """
import os, sys
from pathlib import Path
from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores
store = RocksStores(Path(sys.argv[1]), 8 << 20).open(TaskId("app", "group", 3))
batch = 0
while True:
    batch += 1
    value = b"%012d" % batch
    writes = {b"\\0\\0\\0\\1%d" % key: value + bytes(200) for key in range(300)}
    store.apply(writes, value)
    if batch == 20:
        print("writing", flush=True)
"""

# Is killed when it comes to one of the state's files, with others removed already, or all still there.
REMOVER = """
import os, signal, sys
from pathlib import Path
from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores
stores, task = RocksStores(Path(sys.argv[1]), 8 << 20), TaskId("app", "group", 3)
store = stores.open(task)
store.apply({b"\\0\\0\\0\\1a": b"1"}, b"p1")
store.close()
unlink = os.unlink
def kill(path, **place):
    if os.path.basename(path) == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    unlink(path, **place)
os.unlink = kill
stores.destroy(task)
"""

CLAIMER = """
from pathlib import Path
from pipeline.rocksdb.rocks import RocksStores
stores = RocksStores(Path({!r}), 1 << 20)
stores.claim("app")
print("claimed", flush=True)
input()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the state open and keeps writing."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_values_and_position_are_read_back(stores: Stores) -> None:
    """Reads see what was applied, in the order asked for."""
    store = stores.open(TASK)
    assert store.position() is None
    store.apply({TABLE + b"a": b"1", TABLE + b"b": b"", TABLE + b"c": b"3"}, b"p1")
    store.apply({TABLE + b"a": None, TABLE + b"c": b"4", TABLE + b"never": None}, b"p2")
    assert store.get(TABLE + b"a") is None
    assert store.get_many([TABLE + b"c", TABLE + b"x", TABLE + b"b"]) == [b"4", None, b""]
    assert store.get_many([]) == []
    assert store.position() == b"p2"
    store.close()


def test_a_row_comes_with_the_position_until_the_state_is_closed(stores: Stores) -> None:
    """A query on another thread must never meet a closed database."""
    store = stores.open(TASK)
    assert store.row(TABLE + b"a") == (None, None)
    store.apply({TABLE + b"a": b"1"}, b"p1")
    assert store.row(TABLE + b"a") == (b"p1", b"1")
    assert store.row(TABLE + b"b") == (b"p1", None)
    store.close()
    assert store.row(TABLE + b"a") is None


def test_the_first_row_of_a_prefix_is_found_until_the_state_is_closed(stores: Stores) -> None:
    """A query looks for the buckets of a history on another thread."""
    store = stores.open(TASK)
    other = TABLE[:-1] + bytes([TABLE[-1] + 1])
    store.apply({TABLE + b"a": b"1", TABLE + b"c": b"2", other + b"b": b"3"}, b"p1")
    assert store.first_row(TABLE, TABLE) == (TABLE + b"a", b"1")
    assert store.first_row(TABLE, TABLE + b"b") == (TABLE + b"c", b"2")
    assert store.first_row(TABLE, TABLE + b"d") is None
    store.close()
    assert store.first_row(TABLE, TABLE) is None


def test_a_scan_is_in_byte_order_within_its_prefix(stores: Stores) -> None:
    """Tables lie next to each other in one store; none may show in another, nor may the position."""
    store = stores.open(TASK)
    keys = [
        TABLE + b"a",
        TABLE + b"a\xff",
        TABLE + b"a\xff\xff",
        TABLE + b"b",
        b"\x00\x00\x00\x02a",
        b"\xff\xff",
    ]
    store.apply({key: key for key in reversed(keys)}, b"p")
    assert [key for key, _ in store.scan(TABLE)] == keys[:4]
    assert [key for key, _ in store.scan(TABLE + b"a\xff")] == keys[1:3]
    assert [key for key, _ in store.scan(b"\xff")] == [b"\xff\xff"]
    assert list(store.scan(b"")) == [(key, key) for key in keys]
    assert list(store.scan(TABLE + b"zz")) == []
    store.close()


def test_a_scan_sees_one_moment(stores: Stores) -> None:
    """A view of a table must not mix two commits."""
    store = stores.open(TASK)
    store.apply({TABLE + bytes([n]): b"old" for n in range(100)}, b"p1")
    scan = store.scan(TABLE)
    first = next(scan)
    store.apply({TABLE + bytes([n]): b"new" for n in range(200)}, b"p2")
    assert {value for _, value in [first, *scan]} == {b"old"}
    store.close()


def test_a_key_without_a_table_is_a_bug(stores: Stores) -> None:
    """It could overwrite the position."""
    store = stores.open(TASK)
    with pytest.raises(InvariantError):
        store.apply({b"\x00\x00\x00\x00position": b"x"}, b"p")
    assert store.position() is None
    store.close()


def test_a_reopened_store_has_what_was_applied(stores: Stores) -> None:
    """A restarted worker does not restore what it has on disk."""
    store = stores.open(TASK)
    store.apply({TABLE + b"a": b"1"}, b"p1")
    list(store.scan(TABLE))
    next(store.scan(TABLE))
    unfinished = store.scan(TABLE)
    next(unfinished)
    store.close()
    again = stores.open(TASK)
    assert (again.get(TABLE + b"a"), again.position()) == (b"1", b"p1")
    again.close()


def test_a_store_is_opened_once_at_a_time(stores: Stores) -> None:
    """Two writers of one state would each take the other's batches for their own."""
    store = stores.open(TASK)
    with pytest.raises(ConfigError):
        stores.open(TASK)
    with pytest.raises(ConfigError):
        stores.destroy(TASK)
    with pytest.raises(ConfigError):
        stores.set_aside(TASK)
    other = stores.open(TASK._replace(number=4))
    other.close()
    store.close()


def test_a_destroyed_store_is_gone(stores: Stores) -> None:
    """After a reset nothing of the old state may come back."""
    stores.destroy(TASK)
    store = stores.open(TASK)
    store.apply({TABLE + b"a": b"1"}, b"p1")
    store.close()
    assert stores.exists(TASK)
    stores.destroy(TASK)
    assert not stores.exists(TASK)
    store = stores.open(TASK)
    assert (store.position(), list(store.scan(b""))) == (None, [])
    store.close()


def test_a_state_put_away_is_gone_before_it_is_removed(stores: Stores) -> None:
    """Its task may come back at any moment: removing gigabytes must not be waited for."""
    for turn in range(2):
        store = stores.open(TASK)
        assert store.position() is None
        store.apply({TABLE + b"a": b"1"}, b"p%d" % turn)
        with pytest.raises(ConfigError):
            stores.put_away(TASK)
        store.close()
        remove = stores.put_away(TASK)
        assert not stores.exists(TASK)
        store = stores.open(TASK)
        store.apply({TABLE + b"a": b"2"}, b"new")
        remove()
        assert (store.position(), store.get(TABLE + b"a")) == (b"new", b"2")
        store.close()
        stores.destroy(TASK)


@pytest.mark.parametrize("survivor", ["CURRENT", "LOCK"])
def test_a_process_killed_while_it_removes_a_state_leaves_nothing_to_open(
    tmp_path: Path, survivor: str
) -> None:
    """An incomplete state that is used as a complete one would give wrong results."""
    done = subprocess.run([sys.executable, "-c", REMOVER, str(tmp_path), survivor], check=False)
    assert done.returncode == -signal.SIGKILL
    stores = RocksStores(tmp_path, 8 << 20)
    assert not stores.exists(TASK)
    assert not stores.path(TASK).exists()
    [left] = tmp_path.glob("app/group/.removed/*")
    assert (left / survivor).exists()
    stores.claim("app")
    assert not list(tmp_path.glob("app/group/.*"))


def test_states_set_aside_do_not_overwrite_each_other(stores: Stores) -> None:
    """They are evidence."""
    places = set()
    for _ in range(3):
        store = stores.open(TASK)
        assert store.position() is None
        store.apply({TABLE + b"a": b"1"}, b"p1")
        store.close()
        places.add(stores.set_aside(TASK))
        assert not stores.exists(TASK)
    assert len(places) == 3


def test_a_killed_writer_leaves_one_of_its_batches_whole(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    """Values and position are of one commit, or the journal would be replayed from the wrong place."""
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    store = RocksStores(tmp_path, 8 << 20).open(TASK)
    position = store.position()
    assert position is not None
    assert int(position) >= 20
    values = [value[:12] for _, value in store.scan(TABLE)]
    assert values == [position] * 300
    store.close()


def test_a_state_open_in_another_process_is_refused_by_name(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    """Two workers were given one state directory: the message has to say which."""
    stores = RocksStores(tmp_path, 8 << 20)
    for refused in (stores.open, stores.destroy, stores.put_away, stores.set_aside):
        with pytest.raises(ConfigError, match=str(tmp_path / "app" / "group" / "3")):
            refused(TASK)
    assert writer.poll() is None


def test_a_view_of_a_state_being_written_is_of_one_commit(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    """`pipeline table show` looks into a live worker's state and must not disturb it."""
    stores, positions = RocksStores(tmp_path, 8 << 20), set()

    def moved() -> bool:
        view = stores.open_read_only(TASK)
        position = view.position()
        # Before the writer's first commit there is neither a position nor a row.
        assert {value[:12] for _, value in view.scan(TABLE)} == (
            {position} if position is not None else set()
        )
        view.close()
        positions.add(position)
        return len(positions) > 5

    wait_until(moved, "the writer's progress")
    assert writer.poll() is None


def test_a_view_of_no_state_says_where_it_looked(tmp_path: Path) -> None:
    """The command may have been run on the wrong machine."""
    with pytest.raises(ConfigError, match=str(tmp_path)):
        RocksStores(tmp_path, 8 << 20).open_read_only(TASK)


def test_a_damaged_block_is_an_error_and_not_an_absence(tmp_path: Path) -> None:
    """A flipped byte must never read as a missing key or as the end of a table."""
    stores = RocksStores(tmp_path, 8 << 20)
    store = stores.open(TASK)
    store.apply({TABLE + b"%04d" % n: bytes(100) for n in range(2_000)}, b"p")
    store.close()
    stores.open(TASK).close()  # what was in the write-ahead log is in a table file now
    (file,) = stores.path(TASK).glob("*.sst")
    content = bytearray(file.read_bytes())
    content[10] ^= 0xFF
    file.write_bytes(content)
    store = stores.open(TASK)
    with pytest.raises(CorruptStateError, match=str(stores.path(TASK))):
        store.get(TABLE + b"0000")
    with pytest.raises(CorruptStateError):
        store.get_many([TABLE + b"0000"])
    with pytest.raises(CorruptStateError):
        list(store.scan(TABLE))
    store.close()


def test_a_state_that_cannot_be_opened_can_be_set_aside(tmp_path: Path) -> None:
    """The worker continues with an empty state and the journal, and keeps the damaged state."""
    stores = RocksStores(tmp_path, 8 << 20)
    store = stores.open(TASK)
    store.apply({TABLE + b"a": b"1"}, b"p1")
    store.close()
    (stores.path(TASK) / "CURRENT").write_text("garbage")
    with pytest.raises(CorruptStateError, match=str(stores.path(TASK))):
        stores.open(TASK)
    assert (Path(stores.set_aside(TASK)) / "CURRENT").read_text() == "garbage"
    assert stores.open(TASK).position() is None


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The setting is wrong, and the message says which path."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=str(blocked)):
        RocksStores(blocked, 8 << 20).open(TASK)


def test_a_cleared_store_is_empty_but_for_its_position(stores: Stores) -> None:
    """A reset forgets the rows of every table, in one step with where it stands, and what follows is kept."""
    store = stores.open(TASK)
    keys = [TABLE, TABLE + b"a", b"\x00\x00\x00\x02a", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff" * 20]
    store.apply(dict.fromkeys(keys, b"old"), b"p1")
    store.clear(b"p2")
    assert (list(store.scan(b"")), store.position()) == ([], b"p2")
    assert store.get_many(keys) == [None] * len(keys)
    store.apply({TABLE + b"a": b"new"}, b"p3")
    store.close()
    again = stores.open(TASK)
    assert (list(again.scan(b"")), again.position()) == ([(TABLE + b"a", b"new")], b"p3")
    again.close()


def test_a_part_of_a_store_is_cleared(stores: Stores) -> None:
    """A reset of some partitions keeps the rows of the others, also those of the last possible partition."""
    store = stores.open(TASK)
    cleared = [
        b"\x01\x00\x07",
        b"\x01\x00\x07a",
        b"\x01\x00\x07" + b"\xff" * 9,
        b"\x01\xff\xff",
        b"\x01\xff\xff\xff",
    ]
    kept = [b"\x01\x00\x06\xff", b"\x01\x00\x08", b"\x01\xff\xfe\xff", b"\x02\x00\x00"]
    store.apply(dict.fromkeys([*cleared, *kept], b"old"), b"p1")
    store.clear(b"p2", [b"\x01\x00\x07", b"\x01\xff\xff"])
    assert ([key for key, _ in store.scan(b"")], store.position()) == (kept, b"p2")
    store.close()


def test_states_are_claimed_by_one_worker(tmp_path: Path) -> None:
    """A second worker that comes by mistake is refused before it fences the first one's tasks."""
    first, second = RocksStores(tmp_path, 8 << 20), RocksStores(tmp_path, 8 << 20)
    first.claim("app")
    first.claim("app")
    second.claim("other-app")
    with pytest.raises(ConfigError, match=rf"in use by another worker of app app, process {os.getpid()}"):
        second.claim("app")
    first.release("app")
    second.claim("app")


def test_a_killed_worker_holds_no_claim(tmp_path: Path) -> None:
    """The next start must not need anybody to clean up."""
    code = CLAIMER.format(str(tmp_path))
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        stores = RocksStores(tmp_path, 8 << 20)
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            stores.claim("app")
        other.kill()
        other.wait()
        stores.claim("app")


def test_a_place_that_cannot_hold_states_is_refused_once(tmp_path: Path) -> None:
    """One message for the worker, not one for each of its tasks."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        ConfigError, match=r"cannot use the state directory .*file: Not a directory"
    ) as caught:
        RocksStores(tmp_path / "file", 8 << 20).claim("app")
    assert "--state-dir" in (caught.value.hint or "")
