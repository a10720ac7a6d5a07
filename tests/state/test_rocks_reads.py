"""What a read costs in a state of many rows."""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.state.rocks import RocksStores

TASK = TaskId("app", "main", 0)
ROWS = 200_000
READS = 500


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
