"""Groups that this build has started are refused by an earlier build, which does not know their format."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compat.builds import Build, new_build
from tests.support.compat.fleet import PARTITIONS, MixedFleet

pytestmark = pytest.mark.kafka


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
