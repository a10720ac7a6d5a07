"""Past states: what `restore_at` restores, and how far back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from examples.flights.app import totals
from pipeline.api.declarations import declared_table
from pipeline.api.table import table_prefix
from pipeline.core.entry_body import NEWEST, split_row
from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.errors import CheckpointStoreError, InputError
from pipeline.ops.history.past_states import AtEntry, AtTime, Moment, PastState, restore_at, state_hash
from pipeline.runtime.task.task import Task
from pipeline.testing.memory_store import MemoryStores
from tests.runtime.restore.test_stale_reads import Nth
from tests.support.ops.past_flights import PastFlights, plain


def _restored(rig: PastFlights, task: TaskId, at: Moment) -> PastState:
    return restore_at(task, at, rig.reading_environment(), MemoryStores())


def _rows(past: PastState) -> dict[str, object]:
    prefix, table = table_prefix(totals.name), declared_table(totals)
    rows = ((split_row(key, NEWEST, 0)[1], value) for key, value in past.store.scan(b""))
    return {
        table.key.decode(key[len(prefix) :]): plain(table.value.decode(value))
        for key, value in rows
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("checkpoints", [False, True])
def test_each_past_state_equals_a_fold_of_its_input(checkpoints: bool) -> None:
    """The state at an entry is the result of the records below its positions, and of no other record."""
    rig = PastFlights(checkpoints=checkpoints)
    checked = from_checkpoints = 0
    for partition in range(2):
        task = rig.task(partition)
        entries = rig.entries(task)
        oldest = _restored(rig, task, AtTime(2**62)).oldest.entry.seq
        for entry in entries:
            if entry.entry.seq < oldest or not entry.entry.positions:
                continue
            past = _restored(rig, task, AtEntry(entry.entry.seq))
            assert past.applied.seq == entry.entry.seq
            assert _rows(past) == rig.folded(task, entry.entry.positions)
            checked += 1
            from_checkpoints += past.start is not None
    assert checked > 6
    assert (from_checkpoints > 3) == checkpoints


def test_a_replayed_state_has_the_hash_of_the_live_state() -> None:
    """A drill compares both by this hash, whether the replay starts at a checkpoint or at genesis."""
    for rig in (PastFlights(checkpoints=True), PastFlights()):
        task = rig.task(0)
        with closing(_restored(rig, task, AtEntry(rig.driver.task().applied.seq)).store) as replayed:
            live = rig.driver.task()
            assert isinstance(live, Task)
            assert state_hash(replayed) == state_hash(live.store)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_state_after_a_reset_holds_only_what_came_after(checkpoints: bool) -> None:
    """A reset empties the state: a past state before it has the old rows, one after it has not."""
    rig = PastFlights(checkpoints=checkpoints)
    task, before = rig.task(0), rig.driver.task().applied.seq
    rig.driver.reset("latest", partition=0)
    rig.driver.run()
    assert _rows(_restored(rig, task, AtEntry(before))) != {}
    assert _rows(_restored(rig, task, AtEntry(before + 1))) == {}


def test_a_hash_differs_if_a_row_differs() -> None:
    """A key, a value and a missing row each change the hash, and a value cannot pass for a part of a key."""
    stores = MemoryStores()
    hashes = set()
    for number, rows in enumerate(
        [
            {b"\x01\x00\x00\x00a": b"1"},
            {b"\x01\x00\x00\x00a": b"2"},
            {b"\x01\x00\x00\x00b": b"1"},
            {b"\x01\x00\x00\x00a1": b""},
            {b"\x01\x00\x00\x00a": b"1", b"\x01\x00\x00\x00b": b"1"},
            {},
        ]
    ):
        store = stores.open(TaskId("a", "b", number))
        store.apply(rows, b"position")
        hashes.add(state_hash(store))
    assert len(hashes) == 6


def test_a_time_gives_the_state_before_the_next_commit() -> None:
    """A commit at exactly this time is included, and one a millisecond later is not."""
    rig = PastFlights()
    task = rig.task(0)
    for entry in rig.entries(task):
        past = _restored(rig, task, AtTime(entry.entry.wall_ms))
        expected = [e for e in rig.entries(task) if e.entry.wall_ms <= entry.entry.wall_ms]
        assert past.applied.seq == expected[-1].entry.seq
    with pytest.raises(InputError, match="before the oldest state"):
        _restored(rig, task, AtTime(rig.entries(task)[0].entry.wall_ms - 1))


def test_an_entry_before_the_oldest_checkpoint_names_the_oldest() -> None:
    """The operator must learn at once what is still possible."""
    rig = PastFlights(checkpoints=True)
    task = rig.task(0)
    oldest = _restored(rig, task, AtTime(2**62)).oldest.entry
    assert oldest.kind is not EntryKind.GENESIS
    assert _restored(rig, task, AtEntry(oldest.seq)).replayed == 0
    with pytest.raises(InputError, match=f"entry {oldest.seq} of") as error:
        _restored(rig, task, AtEntry(oldest.seq - 1))
    assert f"--at {oldest.seq}" in (error.value.hint or "")


def test_an_entry_that_does_not_exist_yet_is_an_error() -> None:
    """The newest state under the name of a later entry would be a wrong answer. Nothing is left in the directory."""
    rig = PastFlights()
    task, stores = rig.task(0), MemoryStores()
    last = rig.entries(task)[-1].entry.seq
    with pytest.raises(InputError, match=f"no entry {last + 1} yet"):
        restore_at(task, AtEntry(last + 1), rig.driver.environment(), stores)
    assert not stores.exists(task)


def test_without_the_store_a_truncated_journal_gives_no_past_state() -> None:
    """The error names the setting, because the journal alone is not enough."""
    rig = PastFlights(checkpoints=True)
    environment = replace(rig.driver.environment(), checkpoints=None)
    with pytest.raises(InputError, match="its journal begins at entry") as error:
        restore_at(rig.task(0), AtTime(2**62), environment, MemoryStores())
    assert "worker.checkpoint_store" in (error.value.hint or "")


def test_a_damaged_checkpoint_is_replaced_by_an_older_one() -> None:
    """A past state does not depend on one checkpoint while others are intact."""
    rig = PastFlights(checkpoints=True)
    task = rig.task(0)
    newest = _restored(rig, task, AtTime(2**62))
    assert newest.start is not None
    manifest = next(
        name for name in rig.driver.checkpoints.names() if name.endswith(newest.start.ref.manifest)
    )
    rig.driver.checkpoints.damage(manifest, lambda data: data[:-1])
    again = _restored(rig, task, AtTime(2**62))
    assert again.start is not None
    assert again.start.ref.seq < newest.start.ref.seq
    assert state_hash(again.store) == state_hash(newest.store)


def test_an_unreachable_store_is_reported_if_it_is_needed() -> None:
    """Not as a state that is too old: the same command works again later."""
    rig = PastFlights(checkpoints=True)
    rig.driver.checkpoints.away = CheckpointStoreError("the store does not answer")
    with pytest.raises(CheckpointStoreError, match="does not answer"):
        _restored(rig, rig.task(0), AtTime(2**62))


def test_a_restore_of_the_past_disturbs_nothing() -> None:
    """Nothing is written to Kafka or the store, and the local state of the worker is not opened."""
    rig = PastFlights(checkpoints=True)
    before, objects = rig.records(), rig.driver.checkpoints.names()
    for partition in range(2):  # the environment has no producers and no local states
        restore_at(rig.task(partition), AtTime(2**62), rig.reading_environment(), MemoryStores())
    assert rig.records() == before
    assert rig.driver.checkpoints.names() == objects


@pytest.mark.parametrize("nth", range(4))
def test_a_stale_leader_does_not_hide_an_entry(nth: int) -> None:
    """It knows an older end, by which the newest entry would not exist yet, or the time would be another state."""
    rig = PastFlights()
    task = rig.task(0)
    stale = rig.driver.broker.add_stale_leader(lambda: False)
    rig.fly()
    last = rig.driver.task().applied.seq
    for at in (AtEntry(last), AtTime(2**62)):
        stale.answers = Nth(nth)
        assert _restored(rig, task, at).applied.seq == last
