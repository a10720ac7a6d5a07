"""What the containers tests do on a machine that cannot run containers."""

from __future__ import annotations

import pytest

from tests.containers.engine import UnavailableError, give_up


def test_missing_engine_skips_on_a_persons_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody must install podman to work on something else."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Debian"):
        give_up(UnavailableError("this is no Debian"))


def test_missing_engine_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped test is green, and the images would break unnoticed."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Debian"):
        give_up(UnavailableError("this is no Debian"))
