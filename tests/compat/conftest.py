"""An earlier build and a fleet of both builds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.compat.builds import OLD_COMMIT, SHARING_COMMIT, Build, NoHistoryError, old_build
from tests.support.compat.fleet import MixedFleet


@pytest.fixture
def old(tmp_path: Path) -> Build:
    """The earlier build, from the repository's history."""
    return _earlier(tmp_path, OLD_COMMIT)


@pytest.fixture
def sharing(tmp_path: Path) -> Build:
    """An earlier build whose workers share tasks with those of this build."""
    return _earlier(tmp_path, SHARING_COMMIT)


def _earlier(directory: Path, commit: str) -> Build:
    try:
        return old_build(directory, commit)
    except NoHistoryError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def fleet(kafka: KafkaUnderTest, unique_name: str, tmp_path: Path) -> Iterator[MixedFleet]:
    """An app of its own, and no workers."""
    made = MixedFleet(tmp_path, kafka.bootstrap_servers, unique_name)
    yield made
    made.close()
