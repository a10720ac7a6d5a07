"""What a read costs in a state of many rows."""

from __future__ import annotations

import re
import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores

TASK = TaskId("app", "main", 0)
ROWS = 200_000
READS = 500
FEW_ROWS = 1_000


def _key(number: int) -> bytes:
    return b"\x01abc" + blake2b(b"%d" % number, digest_size=16).digest()


def _bytes_read() -> int:
    """That this process has read from files, cached by the system or not."""
    io = Path("/proc/self/io").read_text(encoding="ascii")
    return int(io.split("rchar:")[1].split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say how much a process reads")
def test_a_row_that_is_not_there_is_not_looked_for_in_the_filter_of_all_rows(tmp_path: Path) -> None:
    """One filter for a whole file outgrows the cache, and is then read from disk for every single row."""
    stores = RocksStores(tmp_path, 128 * 1024)
    store = stores.open(TASK)
    for start in range(0, ROWS, 20_000):
        store.apply({_key(number): b"value" for number in range(start, start + 20_000)}, b"position")
    store._database.compact_range(None, None)  # as it is once many more rows were written
    before = _bytes_read()
    for number in range(ROWS, ROWS + READS):
        assert store.get(_key(number)) is None
    assert _bytes_read() - before < READS * 64 * 1024
    store.close()


def test_a_state_that_is_opened_again_has_its_filters_and_shares_the_cache(tmp_path: Path) -> None:
    """The client forgets both: each state would have a cache of its own, and look through its files for every row."""
    cache_bytes = 3 * 1024 * 1024
    stores = RocksStores(tmp_path, cache_bytes)
    filters = []
    for start in range(0, 3 * FEW_ROWS, FEW_ROWS):
        store = stores.open(TASK)
        assert store.figure("rocksdb.block-cache-capacity") == str(cache_bytes)
        store.apply({_key(number): b"value" for number in range(start, start + FEW_ROWS)}, b"position")
        store._database.flush(wait=True)
        view = stores.open_read_only(TASK)
        assert view.figure("rocksdb.block-cache-capacity") == str(cache_bytes)
        view.close()
        found = re.search(r"# entries for filter=(\d+)", store.figure("rocksdb.aggregated-table-properties"))
        filters.append(int(found.group(1)) if found else 0)
        store.close()
    assert filters == [count * FEW_ROWS + opens for opens, count in enumerate(range(1, 4), 1)]
