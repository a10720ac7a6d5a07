"""Checkpoints from their making to a restore, on in-memory ports: crashes at each step, damage, outages, zombies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import pytest

from pipeline.core.checkpoint import KEPT
from pipeline.core.journal import Kind
from pipeline.core.names import TaskId
from pipeline.errors import ConfigError, CorruptStateError, FatalTaskError
from pipeline.ports import Step
from pipeline.runtime.checkpoints.checkpointer import MAX_UPLOADS
from pipeline.runtime.checkpoints.upload import Made, clean_up
from pipeline.runtime.status import TaskStatus, read_status
from pipeline.testing import DeferredExecutor, MemoryBroker, MemoryCluster, MemoryJournalReader
from tests.runtime.checkpointed import (
    AWAY,
    begins_at,
    eager,
    entries,
    kept,
    manifest,
    prefix,
    with_history,
)
from tests.runtime.steps import CHECKPOINT_STEPS, DOWNLOAD_STEPS
from tests.runtime.sums import Sums


def check_restored_from_a_checkpoint(sums: Sums, seq: int | None = None) -> None:
    """On an empty disk; from the one at `seq`."""
    sums.driver.restart(empty_disk=True)
    sums.send(7)
    sums.driver.run()
    live = sums.driver.said("task_live")[-1]
    assert live["start"] == "a checkpoint"
    if seq is not None:
        assert live["seq"] - live["entries_replayed"] - 1 == seq
    sums.check()


def test_an_empty_disk_is_restored_from_the_newest_checkpoint() -> None:
    """What the time of a restore is bounded by: not the whole history, but its last minute."""
    sums = with_history()
    newest = kept(sums)[0]
    check_restored_from_a_checkpoint(sums, newest.seq)


def test_the_journal_begins_at_the_state_of_the_oldest_kept_checkpoint() -> None:
    """It stays as long as that one may be needed, and no longer."""
    sums = with_history()
    assert len(kept(sums)) == KEPT
    first = entries(sums)[0]
    oldest = kept(sums)[-1]
    assert (first.offset, first.entry.seq, first.chain) == (oldest.offset, oldest.seq, oldest.chain)
    assert begins_at(sums) == oldest.offset > 0


def test_nothing_is_truncated_before_there_are_three() -> None:
    """One checkpoint that turns out to be damaged must not be the end."""
    sums = with_history(KEPT - 2)
    assert 0 < len(kept(sums)) < KEPT
    assert begins_at(sums) == 0
    for name in sums.driver.checkpoints.names():
        sums.driver.checkpoints.damage(name, lambda data: data[:-1])
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert sums.driver.said("task_live")[-1]["start"] == "an empty state"
    sums.check()


def test_status_tells_the_newest_checkpoint_and_predicts_a_restore() -> None:
    """Without one, all of the journal is to be replayed; that is what the operator must see coming."""

    def look(sums: Sums) -> TaskStatus:
        broker = sums.driver.broker
        now_ms = sums.driver.clock.wall_ms()
        return read_status("sums", MemoryCluster(broker), MemoryJournalReader(broker), now_ms).tasks[0]

    with_one, without = look(sums := with_history()), look(with_history(checkpoint_store=""))
    newest = kept(sums)[0]
    assert (with_one.checkpoint_ms, with_one.checkpoint_bytes) == (newest.wall_ms, newest.size)
    assert without.checkpoint_ms == without.checkpoint_bytes == 0
    assert 0 < with_one.journal_bytes < without.journal_bytes
    assert with_one.restore_s > 0


def test_unchanged_files_are_uploaded_once() -> None:
    """A state of a terabyte that changes by a megabyte costs a megabyte."""
    sums = with_history()
    last = sums.driver.said("checkpoint_registered")[-1]
    assert 0 < last["uploaded_files"] < last["files"]
    newest, before = (manifest(sums, ref).objects for ref in kept(sums)[:2])
    assert newest.keys() & before.keys()


def test_the_store_holds_what_is_kept_and_nothing_else() -> None:
    """Objects of old checkpoints are paid for by the month."""
    sums = with_history(12)
    named = {name for ref in kept(sums) for name in [ref.manifest, *manifest(sums, ref).objects]}
    assert set(sums.driver.checkpoints.names()) == {prefix(sums) + name for name in named}


def test_what_is_young_is_not_deleted() -> None:
    """Somebody may be downloading it."""
    sums = with_history(12, checkpoint_grace_s=3600.0)
    assert len(sums.driver.checkpoints.names()) > 12
    sums.driver.clock.advance(3600.0)
    sums.send(1)
    sums.driver.run()
    assert len([n for n in sums.driver.checkpoints.names() if "/manifests/" in n]) == KEPT


def test_an_idle_task_makes_no_checkpoints() -> None:
    """Its last one says all there is to say; each would be an entry and an upload for nothing."""
    sums = eager(checkpoint_journal_bytes=1 << 20)
    sums.send(1)
    for _ in range(5):
        sums.driver.clock.advance(1.0)
        sums.driver.run()
    seq = entries(sums)[-1].entry.seq
    assert entries(sums)[-1].entry.kind is Kind.CHECKPOINT
    for _ in range(5):
        sums.driver.clock.advance(60.0)
        sums.driver.run()
    assert entries(sums)[-1].entry.seq == seq


def test_without_a_store_there_are_no_checkpoints() -> None:
    """The journal is then never truncated, and restores from nothing read all of it."""
    sums = with_history(checkpoint_store="")
    assert kept(sums) == ()
    assert begins_at(sums) == 0
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    sums.check()


# Crashes


@pytest.mark.parametrize("step", CHECKPOINT_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_a_checkpoint_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Whatever of objects, manifest, entry, deletion and truncation is done: the next start copes, every time."""
    sums = with_history()
    for number in range(4):
        sums.driver.crash_at(step, nth=1 + number % 2)
        for _ in range(4):
            sums.send(number)
            sums.driver.run()
            if sums.driver.crashed:
                break
        assert sums.driver.crashed
        sums.driver.restart(empty_disk=empty_disk)
    sums.send(1)
    sums.driver.run()
    sums.check()
    check_restored_from_a_checkpoint(sums)
    assert begins_at(sums) == kept(sums)[-1].offset


@pytest.mark.parametrize("step", DOWNLOAD_STEPS)
@pytest.mark.parametrize("empty_disk", [False, True])
def test_a_crash_at_each_step_of_a_download_leaves_results_exact(step: Step, empty_disk: bool) -> None:
    """Half a state must not be taken for one; the next start begins again."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    for nth in (1, 2, 1):
        sums.driver.crash_at(step, nth=min(nth, 1 if step is not Step.DURING_DOWNLOAD else nth))
        sums.driver.run()
        if not sums.driver.crashed:
            assert step is Step.AFTER_INSTALL  # the state was in its place, and was taken up
            break
        sums.driver.restart(empty_disk=empty_disk)
    sums.driver.run()
    sums.check()


# Damage


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
    assert [said["seq"] for said in sums.driver.said("checkpoint_refused")] == [newest.seq]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_checkpoint_with_a_damaged_object_gives_way_to_the_one_before(how: str) -> None:
    """Also when the damage is in the last of many files, and the others have been downloaded."""
    sums = with_history()
    newest, before = kept(sums)[:2]
    own = manifest(sums, newest).objects.keys() - manifest(sums, before).objects.keys()
    assert own
    hurt(sums, prefix(sums) + min(own), how)
    check_restored_from_a_checkpoint(sums, before.seq)
    assert "object" in sums.driver.said("checkpoint_refused")[0]["reason"]


def test_damage_to_every_checkpoint_stops_the_task_and_names_each() -> None:
    """Starting empty would lose what was truncated: somebody has to know."""
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
    assert [said["seq"] for said in sums.driver.said("checkpoint_refused")] == [newest.seq]
    live = sums.driver.said("task_live")[-1]
    assert live["seq"] - live["entries_replayed"] - 1 == before.seq
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
            "pipeline.runtime.checkpoints.download.read_manifest",
            lambda _store, _cluster, _task, ref: mixed if ref == newest else manifest(sums, ref),
        )
        check_restored_from_a_checkpoint(sums, before.seq)
    assert "another state than its manifest says" in sums.driver.said("checkpoint_refused")[0]["reason"]


def test_an_object_that_vanished_is_made_anew_by_the_next_checkpoint() -> None:
    """Somebody has tidied up by hand: the next manifest must not name what is not there."""
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
    assert not sums.driver.said("checkpoint_refused")


def test_nothing_is_deleted_while_a_kept_manifest_cannot_be_read() -> None:
    """What it names looks like nobody's, and may be all that a repaired manifest needs."""
    sums = with_history()
    newest = kept(sums)[0]
    objects = manifest(sums, newest).objects
    hurt(sums, prefix(sums) + newest.manifest, "flipped")
    sums.driver.restart()  # a process that has not read it before
    sums.send(1)
    sums.driver.run()
    assert newest in kept(sums)
    assert {prefix(sums) + name for name in objects} <= set(sums.driver.checkpoints.names())
    assert sums.driver.said("checkpoint_damaged")


# The local disk is full


def test_a_disk_that_is_full_while_a_checkpoint_arrives_stops_the_task_with_that_reason() -> None:
    """And leaves nothing that looks like a state: with room again, the next start restores it."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    sums.driver.stores.fail_next("write", CorruptStateError("000009.sst cannot be written: No space left"))
    with pytest.raises(CorruptStateError, match="No space left"):
        sums.driver.run()
    assert not sums.driver.stores.exists(sums.task)
    sums.driver.restart()
    sums.driver.run()
    assert sums.driver.said("task_live")[-1]["start"] == "a checkpoint"
    sums.check()


def test_a_disk_that_is_full_while_a_state_is_copied_costs_one_checkpoint() -> None:
    """Processing goes on as long as the state itself can be written; it is tried again."""
    sums = with_history()
    newest = kept(sums)[0]
    sums.driver.stores.fail_next("snapshot", CorruptStateError("cannot be copied: No space left"))
    sums.send(1)
    sums.driver.run()
    (said,) = sums.driver.said("checkpoint_failed")
    assert "No space left" in said["reason"]
    sums.send(2)
    sums.driver.run()
    assert kept(sums)[0].seq > newest.seq
    sums.check()


def test_uploads_keep_to_their_limit() -> None:
    """All of a process together."""
    sums = with_history(checkpoint_bytes_per_s=10)
    said = sums.driver.said("checkpoint_registered")
    assert sum(each["seconds"] for each in said) >= sum(each["uploaded_bytes"] for each in said) / 10 * 0.5
    sums.check()


# What a zombie may do


def test_what_a_fenced_owner_still_deletes_and_truncates_nobody_needs() -> None:
    """Its entry was committed; then it slept, while the next owner made checkpoints of its own."""
    sums = with_history()
    world = sums.driver._world()
    slept: list[Made] = []

    def asleep(task: object, cluster: object, made: Made, *_: object) -> None:
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
        clean_up(sums.task, MemoryBroker.cluster_id, made, sums.driver.checkpoints, world)
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


# The store is away


def test_processing_goes_on_while_the_store_is_away() -> None:
    """One warning for one outage, with numbers; and the checkpoint is made when the store is back."""
    sums = with_history(checkpoint_interval_s=60.0)
    newest, began = kept(sums)[0], begins_at(sums)
    sums.driver.checkpoints.away = AWAY
    for number in range(5):
        sums.send(number)
        sums.driver.clock.advance(10.0)
        sums.driver.run()
    assert kept(sums)[0] == newest
    assert begins_at(sums) == began
    assert len(sums.driver.outputs(sums.sums)) == len(sums.sent)
    (warning,) = sums.driver.said("checkpoint_store_unavailable")
    assert warning["journal_bytes"] > 0
    sums.driver.checkpoints.away = None
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert kept(sums)[0].seq > newest.seq
    assert len(sums.driver.said("checkpoint_store_available")) == 1
    check_restored_from_a_checkpoint(sums)


@pytest.mark.parametrize("call", ["put", "get", "objects"])
def test_an_upload_that_was_interrupted_goes_on_where_it_was(call: str) -> None:
    """A large state would otherwise never get through an unsteady network."""
    sums = with_history(checkpoint_interval_s=60.0)
    sums.driver.restart()  # so that manifests are read, too
    sums.driver.checkpoints.fail_next(call, AWAY)
    names = len(sums.driver.checkpoints.names())
    sums.send(1)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert sums.driver.checkpoints.faults.left() == []
    assert len(sums.driver.checkpoints.names()) <= names + 2
    check_restored_from_a_checkpoint(sums)


def test_a_manifest_whose_first_request_arrives_last_is_the_one_that_was_registered() -> None:
    """A store that answers too late may still do what it was asked, after it did the same for the next request."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_grace_s=60.0)
    store = sums.driver.checkpoints
    put, late = store.put, list[tuple[str, bytes]]()

    def too_late(name: str, content: Iterable[bytes], size: int) -> None:
        data = b"".join(content)
        if "manifest" in name and not late:
            late.append((name, data))
            raise AWAY
        put(name, [data], size)

    store.put = too_late  # type: ignore[method-assign]
    sums.send(1)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    newest = kept(sums)[0]
    assert late[0][0].endswith(newest.manifest)
    put(late[0][0], [late[0][1]], 0)
    check_restored_from_a_checkpoint(sums, seq=newest.seq)


def test_a_journal_that_grows_too_long_pauses_the_intake_and_loses_nothing() -> None:
    """A restore would take as long as the journal is; the limit is the operator's."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_journal_limit_bytes=2_000)
    sums.driver.checkpoints.away = AWAY
    for number in range(20):
        sums.send(number)
        sums.driver.run()
    (paused,) = sums.driver.said("intake_paused")
    assert paused["journal_bytes"] > 2_000
    assert len(sums.driver.outputs(sums.sums)) < len(sums.sent)
    sums.driver.checkpoints.away = None
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert sums.driver.said("intake_resumed")
    sums.check()


def test_a_restore_waits_for_a_store_that_is_away_where_nothing_else_is_left() -> None:
    """An outage is not a loss."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    for _ in range(3):
        sums.driver.checkpoints.fail_next("get", AWAY)
    sums.send(1)
    sums.driver.run()
    assert len(sums.driver.said("task_restarts")) == 3
    sums.check()


def test_a_restore_reads_the_journal_from_its_beginning_while_the_store_is_away() -> None:
    """Where that is still there."""
    sums = eager()
    sums.send(1)
    sums.driver.run()
    assert begins_at(sums) == 0
    assert kept(sums)
    sums.driver.restart(empty_disk=True)
    sums.driver.checkpoints.fail_next("get", AWAY)
    sums.driver.run()
    assert sums.driver.said("task_live")[-1]["start"] == "an empty state"
    sums.check()


def test_deletions_that_failed_are_made_up_for() -> None:
    """What is left undone stands in the next list."""
    sums = with_history()
    sums.driver.checkpoints.fail_next("delete", AWAY)
    sums.send(1)
    sums.driver.run()
    assert sums.driver.said("checkpoint_not_tidied")
    sums.send(1)
    sums.driver.run()
    named = {name for ref in kept(sums) for name in [ref.manifest, *manifest(sums, ref).objects]}
    assert set(sums.driver.checkpoints.names()) == {prefix(sums) + name for name in named}


def test_a_truncation_that_is_not_allowed_is_said_and_harms_nothing() -> None:
    """With the permission that is missing."""
    sums = with_history()
    sums.driver.broker.fail_next("truncate", ConfigError("not authorised"))
    sums.send(1)
    sums.driver.run()
    (said,) = sums.driver.said("checkpoint_not_tidied")
    assert "grant DELETE on topic sums.main.journal" in said["next"]
    check_restored_from_a_checkpoint(sums)


# Local states beside checkpoints


def test_a_local_state_that_the_journal_has_left_behind_is_replaced() -> None:
    """A worker that gets a task back after a long time: no error, and no copy kept for ever."""
    sums = with_history(2)
    left_behind = sums.driver.stores
    sums.driver.stop()
    sums.driver.restart(empty_disk=True)
    for number in range(8):
        sums.send(number)
        sums.driver.run()
    sums.driver.stop()
    left_behind.crash()
    sums.driver.stores = left_behind
    sums.driver.restart()
    sums.send(9)
    sums.driver.run()
    sums.check()
    assert sums.driver.said("task_live")[-1]["start"] == "a checkpoint"
    assert sums.driver.said("local_state_outdated")
    assert not sums.driver.said("local_state_set_aside")


def test_a_local_state_that_fits_is_taken_whatever_the_store_says() -> None:
    """Quick restarts need no store."""
    sums = with_history()
    for name in sums.driver.checkpoints.names():
        sums.driver.checkpoints.delete([name])
    sums.driver.restart()
    sums.send(1)
    sums.driver.run()
    assert sums.driver.said("task_live")[-1]["start"] == "local state"
    sums.check()


def test_a_damaged_local_state_is_set_aside_for_a_checkpoint() -> None:
    """Of this history, as far as anybody can tell: it is kept for whoever asks what happened."""
    sums = with_history()
    sums.driver.crash()
    sums.driver.stores.corrupt(sums.task)
    sums.driver.restart()
    sums.driver.run()
    assert sums.driver.said("task_live")[-1]["start"] == "a checkpoint"
    assert sums.driver.said("local_state_set_aside")
    sums.check()


def test_a_reset_is_replayed_over_a_checkpoint_from_before_it() -> None:
    """Checkpoints outlive a reset; what they hold does not."""
    sums = with_history()
    sums.driver.stop()
    sums.driver.reset()
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert len(sums.driver.outputs(sums.sums)) == 2 * len(sums.sent)
    table = sums.driver.table(sums.totals)
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert sums.driver.table(sums.totals) == table


def test_checkpoints_without_their_journal_are_no_new_group() -> None:
    """Somebody deleted the topic, and the disk is a new one: what it produced before must not come again."""
    sums = with_history()
    sums.driver.stop()
    sums.driver.broker.delete("sums.main.journal")
    sums.driver.broker._offsets.clear()
    sums.driver.restart(empty_disk=True)
    with pytest.raises(FatalTaskError, match="a checkpoint of task sums/main/0"):
        sums.driver.run()


def test_a_restore_says_how_far_it_is() -> None:
    """A large state takes minutes, and whoever waits wants to know how many."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    clock = sums.driver.clock
    store = sums.driver.checkpoints
    real = store.get

    def slow(name: str):  # type: ignore[no-untyped-def]
        clock.advance(2.0)
        yield from real(name)

    store.get = slow  # type: ignore[method-assign]
    sums.driver.run()
    said = sums.driver.said("restore_progress")
    assert said
    assert said[0]["phase"] == "copying"
    assert 0 < said[0]["copied_bytes"] <= said[0]["copy_bytes"]
    assert said[-1]["seconds_left"] is not None


def test_many_tasks_do_not_upload_at_once() -> None:
    """64 tasks that began together would each get a 64th of the network, and of the disk below it."""
    sums = eager(partitions=16, deferred=True, checkpoint_interval_s=60.0, checkpoint_journal_bytes=1 << 20)
    for number in range(64):
        sums.send(number, key=f"k{number}")
    sums.driver.run()
    at_once, done = 0, [0]
    for _ in range(700):
        sums.driver.clock.advance(0.1)
        sums.driver.step()
        worker = sums.driver._worker
        assert worker is not None
        uploads = [each for each in worker._checkpointer._tasks.values() if each.upload is not None]
        at_once = max(at_once, len(uploads))
        executor = sums.driver._executor
        assert isinstance(executor, DeferredExecutor)
        executor.run_one()
        done.append(len(sums.driver.said("checkpoint_registered")))
    assert at_once <= MAX_UPLOADS
    assert done[-1] == 16
    assert 0 < done[len(done) // 2] < 16  # they are spread over the interval


def test_a_truncation_that_overtakes_a_restore_makes_it_choose_again() -> None:
    """A worker that was fenced wakes up and truncates, while its successor reads on from an old local state."""
    sums = with_history(1)
    sums.driver.stop()
    old = sums.driver.stores
    sums.driver.restart(empty_disk=True)
    slept: list[Made] = []

    def asleep(_task: object, _cluster: object, made: Made, *_: object) -> None:
        slept.append(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.runtime.checkpoints.checkpointer.clean_up", asleep)
        for number in range(6):
            sums.send(number)
            sums.driver.run()
    assert begins_at(sums) == 0
    sums.driver.crash()
    old.crash()
    sums.driver.stores = old
    sums.driver.restart()
    steps, world = sums.driver._steps, sums.driver._world()
    reached = steps.reached

    def wake_up(step: Step, task: TaskId) -> None:
        reached(step, task)
        if step is Step.AFTER_CHOICE and slept:
            clean_up(task, MemoryBroker.cluster_id, slept.pop(), sums.driver.checkpoints, world)
            slept.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "reached", wake_up)
        sums.driver.run()
    assert slept == []
    assert begins_at(sums) > 0
    assert sums.driver.said("task_live")[-1]["start"] == "a checkpoint"
    assert sums.driver.said("local_state_outdated")
    sums.check()
