"""The restart benchmark, small."""

from __future__ import annotations

import pytest

from benchmarks import restart
from benchmarks.__main__ import main
from benchmarks.timeline import STAGES


@pytest.mark.kafka
def test_the_restart_benchmark_runs_and_says_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published measurement must be repeatable. Its bound is for an idle machine."""
    monkeypatch.setattr(restart, "BOUND_S", 60.0)
    monkeypatch.setattr(restart, "REWRITTEN_ROWS", 500)
    assert main(["restart", "--keys", "2000", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert [stage for stage in STAGES if stage not in printed] == []
    assert "restart, 2,000 keys" in printed
    assert "within 60 s" in printed
    assert "median of 1" in printed
