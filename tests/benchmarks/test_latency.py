"""The latency benchmark, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import latency
from benchmarks.__main__ import main

ROOT = Path(latency.__file__).parents[1]


@pytest.mark.kills
def test_the_latency_benchmark_runs_and_says_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published measurement must be repeatable. Every output must have been read, or it ends with an error."""
    monkeypatch.setattr(latency, "SECONDS", 2.0)
    assert (
        main(["latency", "--case", "100:2:1", "--case", "0:2", "--rounds", "1", "--against", str(ROOT)]) == 0
    )
    printed = capsys.readouterr().out
    for words in (
        "100 records/s, 2 partitions",
        "pipeline relative to raw: p50",
        "relative to other",
        "0 records/s",
    ):
        assert words in printed
