"""What a fenced owner can still do to checkpoints, and checkpoints that were never registered."""

from __future__ import annotations

import pytest

from pipeline.ports import Step
from pipeline.runtime.checkpoints.upload import Uploaded, clean_up
from pipeline.testing import MemoryBroker
from tests.support.runtime.checkpointed import (
    begins_at,
    check_restored_from_a_checkpoint,
    kept,
    manifest,
    prefix,
    with_history,
)


def test_a_fenced_owner_deletes_only_what_is_not_needed() -> None:
    """Its entry was committed; then it slept, while the next owner made checkpoints of its own."""
    sums = with_history()
    environment = sums.driver.environment()
    slept: list[Uploaded] = []

    def asleep(task: object, cluster: object, made: Uploaded, *_: object) -> None:
        slept.append(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.checkpoints.checkpointer.clean_up", asleep)
        sums.send(1)
        sums.driver.run()
    assert slept
    sums.driver.restart()
    for number in range(5):
        sums.send(number, key=f"k{number}")
        sums.driver.run()
    for made in slept:
        clean_up(sums.task, MemoryBroker.cluster_id, made, sums.driver.checkpoints, environment)
    assert begins_at(sums) == kept(sums)[-1].offset
    for ref in kept(sums):
        objects = manifest(sums, ref).objects
        assert {prefix(sums) + name for name in objects} <= set(sums.driver.checkpoints.names())
    check_restored_from_a_checkpoint(sums, kept(sums)[0].seq)


def test_an_owner_whose_entry_is_not_committed_deletes_and_truncates_nothing() -> None:
    """It was fenced while it uploaded; what its entry would have let go, the next owner keeps."""
    sums = with_history()
    oldest, began = kept(sums)[-1], begins_at(sums)
    objects = [prefix(sums) + name for name in manifest(sums, oldest).objects]
    sums.send(1)
    sums.driver.crash_at(Step.BEFORE_BEGIN, nth=2)  # the commit's, then that of the entry that registers
    sums.driver.run()
    assert sums.driver.crashed
    assert kept(sums)[-1] == oldest
    assert begins_at(sums) == began
    assert {prefix(sums) + oldest.manifest, *objects} <= set(sums.driver.checkpoints.names())
    check_restored_from_a_checkpoint(sums)


def test_a_manifest_that_was_never_registered_is_not_used() -> None:
    """A worker that was fenced before its entry: the next owner may delete its objects at any moment."""
    sums = with_history()
    sums.send(5)
    sums.driver.crash_at(Step.AFTER_MANIFEST)
    sums.driver.run()
    assert sums.driver.crashed
    registered = kept(sums)[0]
    stray = max(name for name in sums.driver.checkpoints.names() if "/manifests/" in name)
    assert stray > prefix(sums) + registered.manifest
    check_restored_from_a_checkpoint(sums, registered.seq)


def test_objects_that_were_never_registered_are_deleted_and_not_used() -> None:
    """The uploads of crashed workers."""
    sums = with_history()
    sums.send(5)
    sums.driver.crash_at(Step.BEFORE_MANIFEST)
    sums.driver.run()
    named = {prefix(sums) + name for ref in kept(sums) for name in manifest(sums, ref).objects}
    strays = {name for name in sums.driver.checkpoints.names() if "/objects/" in name} - named
    assert strays
    sums.driver.restart()
    sums.send(6)
    sums.driver.run()
    assert not strays & set(sums.driver.checkpoints.names())
    check_restored_from_a_checkpoint(sums)
