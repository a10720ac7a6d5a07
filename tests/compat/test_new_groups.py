"""Groups that this build has started are refused by an earlier build, which does not know their format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KafkaUnderTest
from tests.support.compat.builds import Build, NoHistoryError, new_build, old_build
from tests.support.compat.fleet import PARTITIONS, MixedFleet

pytestmark = pytest.mark.kafka


@pytest.fixture
def old(tmp_path: Path) -> Build:
    """The earlier build, from the repository's history."""
    try:
        return old_build(tmp_path)
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


@pytest.mark.parametrize(
    ("tasks", "refused"),
    [
        (2, "keys have moved away from their state"),
        (PARTITIONS, "format version 2 is unknown to this release"),
    ],
)
def test_an_earlier_build_refuses_a_new_group(
    tasks: int, refused: str, old: Build, fleet: MixedFleet, tmp_path: Path
) -> None:
    """A rollback must not take rows of several partitions for those of one."""
    new = fleet.start("a", new_build(tmp_path), tasks=tasks)
    fleet.wait(lambda: len(new.acquired()) >= tasks + PARTITIONS)
    fleet.stop(new)
    entries = fleet.entries("main")
    earlier = fleet.start("b", old)
    fleet.wait(lambda: not earlier.alive or refused in earlier.log.read_text(encoding="utf-8"))
    assert refused in earlier.log.read_text(encoding="utf-8")
    assert fleet.entries("main") == entries
