"""The copy of the package that is broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.breaking import Copy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The package and its tests, copied; one for each process that runs tests."""
    directory = tmp_path_factory.mktemp("copied")
    for folder in ("pipeline", "tests"):
        shutil.copytree(ROOT / folder, directory / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    copy = Copy(directory)
    yield copy
    copy.close()
