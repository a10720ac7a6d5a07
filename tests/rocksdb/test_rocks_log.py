"""What RocksDB has to replay when a killed process's state is opened."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores
from tests.support.waiting import wait_until

ROWS_IN_A_COMMIT = 2_500
MAX_LOG_BYTES = 7_000_000  # of the buffer being written and of one that is being flushed


def test_what_a_restart_replays_from_disk_is_bounded_however_much_was_written(tmp_path: Path) -> None:
    """Opening stops the whole process, once for each task: an unbounded log would make a restart slow."""
    store = RocksStores(tmp_path, block_cache_bytes=1024 * 1024).open(TaskId("app", "main", 0))
    for commit in range(50):
        rows = range(commit * ROWS_IN_A_COMMIT, (commit + 1) * ROWS_IN_A_COMMIT)
        store.apply({b"\x00\x00\x00\x01row-%d" % row: b"%048d" % row for row in rows}, b"position")
        # A thread in the background writes full buffers to files, and deletes their logs.
        wait_until(lambda: _log_bytes(tmp_path) < MAX_LOG_BYTES, lambda: f"{_log_bytes(tmp_path)} bytes")
    store.close()


def _log_bytes(directory: Path) -> int:
    found = 0
    for file in directory.rglob("*.log"):
        with suppress(FileNotFoundError):  # it has just been deleted
            found += file.stat().st_size
    return found
