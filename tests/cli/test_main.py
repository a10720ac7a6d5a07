"""The command as a whole."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.cli.conftest import Run


def test_it_knows_its_version(pipeline: Run) -> None:
    """The first question of every report."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert pipeline("--version", code=0).stdout == f"pipeline {project['version']}\n"
