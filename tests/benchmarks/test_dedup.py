"""The dedup benchmark, small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import dedup
from benchmarks.__main__ import main


def test_a_dedup_table_is_filled_looked_up_and_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published measurement must be repeatable."""
    monkeypatch.setattr(dedup, "LOOKED_UP", 100)
    bench = dedup.Bench("", tmp_path, 40_000)
    assert "bytes of journal an id" in bench.fill()
    printed = "\n".join(bench.states())
    for words in ("bytes an id", "look-ups", "forgotten: 10,000 ids"):
        assert words in printed


@pytest.mark.kills
def test_the_dedup_benchmark_runs_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """With real workers on a real Kafka."""
    assert main(["dedup", "--ids", "40000", "--events", "1000", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    for words in ("40,000 ids in 4 tasks", "with dedup", "ratio", "bytes an id"):
        assert words in printed
    found = re.search(r"forgotten: ([0-9,]+) ids", printed)
    assert found, printed
    # Of one task: a fourth of the ids, and those that its worker may have added from the 1,000 events.
    assert 10_000 <= int(found[1].replace(",", "")) < 11_000
