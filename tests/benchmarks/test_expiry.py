"""Nothing is left of rows that are over, on a real disk: the expiry benchmark, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import expiry
from benchmarks.__main__ import main


def test_rows_that_are_over_leave_nothing_on_disk(tmp_path: Path) -> None:
    """A key that was seen once costs nothing in the end: neither rows and entries, nor bytes after a compaction."""
    found = expiry.measure(50_000, tmp_path)
    assert (found.written, found.rows) == (100_000, 0)
    assert found.bytes < 5_000 < found.most_bytes


def test_the_benchmark_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A published measurement must be repeatable."""
    assert main(["expiry", "--keys", "1000"]) == 0
    assert "when all are over: 0 rows" in capsys.readouterr().out
