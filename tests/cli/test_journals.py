"""An app is named to commands that read Kafka alone as it is to those that run its code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.cli.lookup import app_named
from pipeline.errors import ConfigError


@pytest.fixture(autouse=True)
def delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the user's, as they are found from the working directory."""
    (tmp_path / "delays_of_a_user.py").write_text("from pipeline import App\napp = App('flight-delays')\n")
    (tmp_path / "broken_by_a_user.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_name_and_module_app_mean_the_same_app() -> None:
    """A user who has started `pipeline worker delays:app` gives the same argument to `status`."""
    assert app_named("flight-delays") == app_named("delays_of_a_user:app") == "flight-delays"


@pytest.mark.parametrize("given", ["no_such_module:app", "broken_by_a_user:app", "delays_of_a_user:other"])
def test_code_that_cannot_be_had_here_is_not_needed(given: str) -> None:
    """The operator's machine may not have the packages that the app imports."""
    with pytest.raises(ConfigError) as error:
        app_named(given)
    assert error.value.hint is not None
    assert "or give the app's name: this command does not need its code" in error.value.hint


def test_what_can_be_neither_is_refused() -> None:
    """A slash would make the name of another topic."""
    with pytest.raises(ConfigError, match="flight/delays"):
        app_named("flight/delays")
