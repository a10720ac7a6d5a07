"""The memory and the disk of a state, compared with what is written and with the files."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.rocksdb.options import SharedMemory
from pipeline.rocksdb.rocks import RocksStores
from pipeline.rocksdb.store import RocksStore

TASK = TaskId("app", "group", 3)
CACHE_BYTES = 8 << 20


def fill(store: RocksStore, rows: int) -> int:
    """The bytes that were written."""
    size = 0
    for start in range(0, rows, 500):
        writes: dict[bytes, bytes | None] = {
            b"\0\0\0\1%08d" % number: (b"%08d" % (number * 7919)) * 32 for number in range(start, start + 500)
        }
        store.apply(writes, b"%d" % start)
        size += sum(len(key) + len(value or b"") for key, value in writes.items())
    return size


def test_the_disk_is_that_of_the_table_files(tmp_path: Path) -> None:
    """And what is not flushed yet is memory."""
    stores = RocksStores(tmp_path, CACHE_BYTES)
    store = stores.open(TASK)
    size = fill(store, 2_000)
    before = store.usage()
    assert before is not None
    assert before.sst_bytes == 0
    assert before.memtable_bytes >= size
    store.snapshot().close()  # flushes
    files = [file.stat().st_size for file in stores.path(TASK).glob("*.sst")]
    after = store.usage()
    assert after is not None
    assert after.sst_bytes == sum(files) > 0
    assert after.memtable_bytes < before.memtable_bytes
    assert (after.write_delays, after.write_stops) == (0, 0)
    store.close()


def test_many_states_are_opened_side_by_side(tmp_path: Path) -> None:
    """A worker of 300 tasks ended: one thread opened a state while another one counted those that are open."""
    stores = RocksStores(tmp_path, CACHE_BYTES)
    tasks = [TaskId("app", "group", number) for number in range(60)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            opened = list(threads.map(stores.open, tasks))
    finally:
        sys.setswitchinterval(interval_s)
    for store in opened:
        store.close()


def test_all_states_share_the_block_cache(tmp_path: Path) -> None:
    """Its figure is that of the process, and never above the setting."""
    stores = RocksStores(tmp_path, CACHE_BYTES)
    one, other = stores.open(TASK), stores.open(TaskId("app", "group", 4))
    fill(one, 5_000)
    one.snapshot().close()
    for number in range(0, 5_000, 7):
        one.get(b"\0\0\0\1%08d" % number)
    usages = [one.usage(), other.usage()]
    assert usages[0] is not None
    assert usages[1] is not None
    assert 0 < usages[0].block_cache_bytes == usages[1].block_cache_bytes <= CACHE_BYTES
    one.close()
    other.close()


def test_the_write_buffers_of_all_states_have_one_limit(tmp_path: Path) -> None:
    """A worker with many tasks would otherwise need a full write buffer for each, also for those that are idle now."""
    stores = RocksStores(tmp_path, CACHE_BYTES)
    opened = [stores.open(TaskId("app", "group", number)) for number in range(8)]
    assert sum(fill(store, 9_000) for store in opened) > 2 * CACHE_BYTES
    assert sum(store.write_buffer_bytes() for store in opened) <= CACHE_BYTES / 2
    files = [len(list(stores.path(TaskId("app", "group", number)).glob("*.sst"))) for number in range(8)]
    assert sum(files) < 24  # and none of them is small
    for store in opened:
        store.close()


@pytest.mark.parametrize(("states", "mib"), [(1, 4), (32, 4), (64, 2), (128, 1), (1000, 1)])
def test_many_states_have_smaller_write_buffers(states: int, mib: int) -> None:
    """An empty buffer takes memory, too: a twentieth of its size for its filter."""
    memory = SharedMemory(CACHE_BYTES)
    memory.adapt(states)
    assert memory.write_buffer_bytes == mib << 20


def test_buffers_that_are_nearly_empty_are_not_flushed() -> None:
    """A thousand idle states take more than any limit, and a flush of one would give nothing back."""
    memory = SharedMemory(CACHE_BYTES)
    assert memory.to_flush([300_000] * 1_000) is None
    assert memory.to_flush([300_000, 4_000_000, 300_000]) == 1
    assert memory.to_flush([300_000, 3_000_000, 300_000]) is None


def test_a_closed_state_has_no_usage(tmp_path: Path) -> None:
    """A scrape may come while the processing thread closes it."""
    store = RocksStores(tmp_path, CACHE_BYTES).open(TASK)
    store.close()
    assert store.usage() is None


def test_a_close_is_not_disturbed_by_scrapes(tmp_path: Path) -> None:
    """The client refuses to close a database that another thread asks at this moment."""
    stores = RocksStores(tmp_path, CACHE_BYTES)
    ended = threading.Event()
    current = [stores.open(TASK)]

    def scrape() -> None:
        while not ended.is_set():
            current[0].usage()

    threads = [threading.Thread(target=scrape, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        current[0].apply({b"\0\0\0\1%d" % number: b"v"}, b"p")
        current[0].close()
        current[0] = stores.open(TASK)
    ended.set()
    for thread in threads:
        thread.join()
    current[0].close()
