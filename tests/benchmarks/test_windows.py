"""The windows benchmark, small."""

from __future__ import annotations

import pytest

from benchmarks import windows
from benchmarks.__main__ import main


@pytest.mark.kills
def test_the_windows_benchmark_runs_and_says_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published measurement must be repeatable."""
    monkeypatch.setattr(windows, "MOST", 100)
    assert main(["windows", "--events", "2000", "--rounds", "1"]) == 0
    assert "of the CPU seconds of a running sum for each record" in capsys.readouterr().out
