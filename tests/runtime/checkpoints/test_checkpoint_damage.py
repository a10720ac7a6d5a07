"""Damaged manifests, objects and states: the checkpoint before is used, or the task stops and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import pytest

from pipeline.errors import CorruptStateError, FatalTaskError
from tests.support.runtime.checkpointed import (
    check_restored_from_a_checkpoint,
    kept,
    manifest,
    prefix,
    with_history,
)
from tests.support.runtime.sums import Sums

DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "missing": None,
    "truncated": lambda data: data[:-1],
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "longer": lambda data: data + b"x",
    "empty": lambda _data: b"",
}


def hurt(sums: Sums, name: str, how: str) -> None:
    change = DAMAGES[how]
    if change is None:
        sums.driver.checkpoints.delete([name])
    else:
        sums.driver.checkpoints.damage(name, change)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_checkpoint_whose_manifest_is_damaged_gives_way_to_the_one_before(how: str) -> None:
    """With a line that says which, and why."""
    sums = with_history()
    newest, before = kept(sums)[:2]
    hurt(sums, prefix(sums) + newest.manifest, how)
    check_restored_from_a_checkpoint(sums, before.seq)
    assert [said["seq"] for said in sums.driver.log_events("checkpoint_refused")] == [newest.seq]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_checkpoint_with_a_damaged_object_gives_way_to_the_one_before(how: str) -> None:
    """Also when the damage is in the last of many files, and the others have been downloaded."""
    sums = with_history()
    newest, before = kept(sums)[:2]
    own = manifest(sums, newest).objects.keys() - manifest(sums, before).objects.keys()
    assert own
    hurt(sums, prefix(sums) + min(own), how)
    check_restored_from_a_checkpoint(sums, before.seq)
    assert "object" in sums.driver.log_events("checkpoint_refused")[0]["message"]


def test_damage_to_every_checkpoint_stops_the_task_and_names_each() -> None:
    """An empty start would lose the truncated entries, so the operator must decide."""
    sums = with_history()
    for ref in kept(sums):
        hurt(sums, prefix(sums) + ref.manifest, "flipped")
    sums.driver.restart(empty_disk=True)
    with pytest.raises(FatalTaskError, match="nothing to restore") as caught:
        sums.driver.run()
    assert all(f"checkpoint {ref.seq} cannot be used" in caught.value.message for ref in kept(sums))
    assert "nothing-to-restore-from" in str(caught.value.hint)


def test_a_state_that_cannot_be_opened_gives_way_to_the_one_before() -> None:
    """The last check: whether RocksDB makes a state of the files, and what that says itself."""
    sums = with_history()
    newest, before = kept(sums)[:2]
    sums.driver.restart(empty_disk=True)
    sums.driver.stores.fail_next("open", CorruptStateError("no such table file"))
    sums.driver.run()
    assert [said["seq"] for said in sums.driver.log_events("checkpoint_refused")] == [newest.seq]
    live = sums.driver.log_events("task_live")[-1]
    assert live["seq"] - live["replayed_entries"] - 1 == before.seq
    sums.check()


def test_a_state_that_is_another_state_than_its_manifest_says_gives_way_to_the_one_before() -> None:
    """Whole and well hashed, and not what was asked for: a position is believed only from the state itself."""
    sums = with_history()
    newest, before = kept(sums)[:2]
    older = {file.name: file for file in manifest(sums, before).files}
    real = manifest(sums, newest)
    mixed = msgspec.structs.replace(
        real, files=tuple(older["CURRENT"] if file.name == "CURRENT" else file for file in real.files)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipeline.runtime.restore.restore_source.read_manifest",
            lambda _store, _cluster, _task, ref: mixed if ref == newest else manifest(sums, ref),
        )
        check_restored_from_a_checkpoint(sums, before.seq)
    assert (
        "another state than its manifest says" in sums.driver.log_events("checkpoint_refused")[0]["message"]
    )


def test_an_object_that_vanished_is_made_anew_by_the_next_checkpoint() -> None:
    """After objects were deleted by hand, the next manifest must not refer to them."""
    sums = with_history()
    for name in manifest(sums, kept(sums)[0]).objects:
        sums.driver.checkpoints.delete([prefix(sums) + name])
    sums.send(1)
    sums.driver.run()
    check_restored_from_a_checkpoint(sums, kept(sums)[0].seq)


def test_an_object_that_was_lost_by_the_store_is_uploaded_again_before_anything_names_it() -> None:
    """A journal is truncated on the strength of what the manifest says."""
    sums = with_history()
    store, lost = sums.driver.checkpoints, list[str]()
    put = store.put

    def losing(name: str, content: Iterable[bytes], size: int) -> None:
        put(name, content, size)
        if not lost:
            lost.append(name)
            store.delete([name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "put", losing)
        sums.send(1)
        sums.driver.run()
    assert "/objects/" in lost[0]
    check_restored_from_a_checkpoint(sums, kept(sums)[0].seq)
    assert not sums.driver.log_events("checkpoint_refused")


def test_nothing_is_deleted_while_a_kept_manifest_cannot_be_read() -> None:
    """Its objects look unused, but a repaired manifest may need them."""
    sums = with_history()
    newest = kept(sums)[0]
    objects = manifest(sums, newest).objects
    hurt(sums, prefix(sums) + newest.manifest, "flipped")
    sums.driver.restart()  # a process that has not read it before
    sums.send(1)
    sums.driver.run()
    assert newest in kept(sums)
    assert {prefix(sums) + name for name in objects} <= set(sums.driver.checkpoints.names())
    assert sums.driver.log_events("checkpoint_damaged")


def test_a_damaged_local_state_is_set_aside_for_a_checkpoint() -> None:
    """It may belong to this history, so it is kept for diagnosis."""
    sums = with_history()
    sums.driver.crash()
    sums.driver.stores.corrupt(sums.task)
    sums.driver.restart()
    sums.driver.run()
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "a checkpoint"
    assert sums.driver.log_events("local_state_set_aside")
    sums.check()
