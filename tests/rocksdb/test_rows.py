"""The order in which a row and its position are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.names import TaskId
from pipeline.rocksdb.rocks import RocksStores

KEY = b"\x00\x00\x00\x01a"


def test_a_commit_between_the_two_reads_makes_the_row_newer_and_not_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that waits for its own record trusts the position: the row must contain it."""
    store = RocksStores(tmp_path, 8 << 20).open(TaskId("app", "group", 0))
    store.apply({KEY: b"old"}, b"p1")
    reads: list[bytes] = []
    get = store.get

    def get_and_commit(key: bytes) -> bytes | None:
        found = get(key)
        if not reads:
            store.apply({KEY: b"new"}, b"p2")
        reads.append(key)
        return found

    monkeypatch.setattr(store, "get", get_and_commit)
    assert store.row(KEY) == (b"p1", b"new")
    store.close()
