"""Checkpoints from their making to a restore, on in-memory ports."""

from __future__ import annotations

import pytest

from pipeline.core import recovery_time
from pipeline.core.checkpoint import KEPT
from pipeline.core.journal_format import EntryKind
from pipeline.core.recovery_time import RecoverySpeed, predicted_restore_s
from pipeline.runtime.checkpoints.checkpointer import MAX_UPLOADS
from pipeline.runtime.status import TaskStatus, read_status
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.checkpointed import (
    AWAY,
    begins_at,
    check_restored_from_a_checkpoint,
    eager,
    entries,
    kept,
    manifest,
    prefix,
    with_history,
)
from tests.support.runtime.sums import Sums


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
    assert sums.driver.log_events("task_live")[-1]["restored_from"] == "an empty state"
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
    last = sums.driver.log_events("checkpoint_registered")[-1]
    assert 0 < last["uploaded_files"] < last["files"]
    newest, before = (manifest(sums, ref).objects for ref in kept(sums)[:2])
    assert newest.keys() & before.keys()


def test_the_store_holds_what_is_kept_and_nothing_else() -> None:
    """Objects of old checkpoints are paid for by the month."""
    sums = with_history(12)
    named = {name for ref in kept(sums) for name in [ref.manifest, *manifest(sums, ref).objects]}
    assert set(sums.driver.checkpoints.names()) == {prefix(sums) + name for name in named}


def test_what_is_young_is_not_deleted() -> None:
    """A worker may be downloading it."""
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
    assert entries(sums)[-1].entry.kind is EntryKind.CHECKPOINT
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


def test_uploads_keep_to_their_limit() -> None:
    """All of a process together."""
    sums = with_history(checkpoint_bytes_per_s=10)
    said = sums.driver.log_events("checkpoint_registered")
    assert sum(each["duration_s"] for each in said) >= sum(each["uploaded_bytes"] for each in said) / 10 * 0.5
    sums.check()


def test_a_restore_waits_for_a_store_that_is_away_where_nothing_else_is_left() -> None:
    """An outage is not a loss."""
    sums = with_history()
    sums.driver.restart(empty_disk=True)
    for _ in range(3):
        sums.driver.checkpoints.fail_next("get", AWAY)
    sums.send(1)
    sums.driver.run()
    assert len(sums.driver.log_events("task_restarting")) == 3
    sums.check()


def test_a_restore_says_how_far_it_is() -> None:
    """A large state takes minutes, and the operator must see the progress."""
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
    said = sums.driver.log_events("restore_progress")
    assert said
    assert said[0]["phase"] == "copying"
    assert 0 < said[0]["copied_bytes"] <= said[0]["total_bytes"]
    assert said[-1]["remaining_s"] is not None
    live = sums.driver.log_events("task_live")[-1]
    assert 2.0 <= live["copy_s"] <= live["restore_s"]


def test_a_prediction_uses_what_the_last_restores_have_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of a store and of a machine is not known before, and a restart on the same disk copies nothing."""
    monkeypatch.setattr(recovery_time, "LEAST_BYTES", 1)  # these checkpoints are small
    sums = with_history()
    broker, clock, store = sums.driver.broker, sums.driver.clock, sums.driver.checkpoints

    def speed() -> RecoverySpeed:
        status = read_status("sums", MemoryCluster(broker), MemoryJournalReader(broker), clock.wall_ms())
        (found,) = status.speeds.values()
        assert all(
            task.restore_s == round(predicted_restore_s(task.checkpoint_bytes, task.journal_bytes, found), 1)
            for task in status.tasks
        )
        return found

    before = speed()
    real = store.get

    def slow(name: str):  # type: ignore[no-untyped-def]
        clock.advance(20.0)
        yield from real(name)

    store.get = slow  # type: ignore[method-assign]
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    measured = speed()
    assert measured.copy_bytes_per_s < before.copy_bytes_per_s
    store.get = real  # type: ignore[method-assign]
    sums.driver.restart()
    sums.driver.run()
    assert speed().copy_bytes_per_s == measured.copy_bytes_per_s


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
        worker = sums.driver.worker
        uploads = [each for each in worker._checkpointer._tasks.values() if each.upload is not None]
        at_once = max(at_once, len(uploads))
        sums.driver.run_deferred()
        done.append(len(sums.driver.log_events("checkpoint_registered")))
    assert at_once <= MAX_UPLOADS
    assert done[-1] == 16
    assert 0 < done[len(done) // 2] < 16  # they are spread over the interval
