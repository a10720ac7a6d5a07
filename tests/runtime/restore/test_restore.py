"""Restore on in-memory ports: crashes in the middle of a replay, and an older owner that is still there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pipeline.core.names import TopicPartition
from pipeline.errors import FatalTaskError, TruncatedError
from pipeline.ports import JournalBounds, Step
from pipeline.runtime.environment import Environment
from pipeline.runtime.restore import restore
from pipeline.testing import Faults
from pipeline.testing.memory_clients import MemoryJournalReader
from pipeline.testing.memory_store import MemoryStore
from tests.support.runtime.sums import Sums


def test_crashes_in_a_replay_resume_it_and_leave_results_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long replay that began anew after each crash might never end; one that skipped would lose state."""
    monkeypatch.setattr(restore, "REPLAY_BATCH_BYTES", 1)
    sums = Sums()
    for number in range(10):
        sums.send(number)
        sums.driver.run()
    sums.driver.restart(empty_disk=True)
    left = []
    for _ in range(4):
        sums.driver.crash_at(Step.DURING_REPLAY, nth=2)
        sums.send(1, key="b")
        sums.driver.run()
        assert sums.driver.crashed
        left.append(sums.driver.table(sums.totals)["a"].count if sums.driver.table(sums.totals) else 0)
        sums.driver.restart()
    assert left == sorted(set(left))
    sums.driver.run()
    sums.check()


def rows_in_each_write(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the state on disk gets in each write from now on."""
    written: list[int] = []
    apply = MemoryStore.apply

    def noting(store: MemoryStore, writes: Mapping[bytes, bytes | None], position: bytes) -> None:
        written.append(len(writes))
        apply(store, writes, position)

    monkeypatch.setattr(MemoryStore, "apply", noting)
    return written


def test_a_replay_keeps_no_more_in_memory_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of a day does not fit; and what was written once need not be written again with each batch."""
    sums = Sums()
    for number in range(10):
        sums.send(number, key=f"k{number}")
        sums.driver.run()
    sums.driver.restart(empty_disk=True)
    monkeypatch.setattr(restore, "REPLAY_BATCH_BYTES", 1)
    written = rows_in_each_write(monkeypatch)
    sums.driver.run()
    assert max(written) == 1
    assert sum(written) == 10
    sums.check()


def test_a_replay_writes_many_entries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write for each entry of a long journal would take a hundred times as long."""
    sums = Sums()
    for number in range(10):
        sums.send(number, key=f"k{number}")
        sums.driver.run()
    sums.driver.restart(empty_disk=True)
    written = rows_in_each_write(monkeypatch)
    sums.driver.run()
    assert written == [10, 0]  # the replay, and the acquire entry
    sums.check()


def test_a_journal_that_is_truncated_under_every_restore_stops_the_task() -> None:
    """Another program deletes the data; endless retries would hide that."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    sums.driver.stop()
    plans = restore.MAX_PLANS
    for _ in range(3 * plans):
        sums.driver.broker.fail_next(
            "read", TruncatedError("below what it holds"), where=str(sums.task.journal)
        )
    with pytest.raises(
        FatalTaskError, match=f"truncated during {plans} restores in a row: below what it holds"
    ):
        sums.driver.run()
    sums.driver.broker.faults = Faults()
    sums.driver.restart()
    sums.driver.run()
    sums.check()


def test_an_older_owner_that_wakes_up_while_a_restore_reads_can_commit_no_more() -> None:
    """Its entry would lie behind the end that was read: the new owner would write the same number again."""
    older, newer = Sums(), Sums(seed=1)
    newer.driver.broker = older.driver.broker
    newer.driver.run()
    newer.driver.restart()
    older.send(1)
    older.driver.run()
    older.send(2)
    older.driver.step()  # the record is processed, its commit not yet due
    made = newer.driver.environment
    starts = len(newer.driver.log_events("worker_started"))

    class WokenUp(MemoryJournalReader):
        def bounds(self, journal: TopicPartition) -> JournalBounds:
            found = super().bounds(journal)  # the restore's first look
            restores = (
                len(newer.driver.log_events("worker_started")) > starts
            )  # the start has looks of its own
            if restores and journal == newer.task.journal and not older.driver.crashed:
                older.driver.clock.advance(1.0)
                older.driver.step()  # now it is due
                older.driver.crash()
            return found

    def environment() -> Environment:
        return replace(made(), journals=lambda: WokenUp(newer.driver.broker))

    newer.driver.environment = environment  # type: ignore[method-assign]
    newer.driver.run()
    newer.sent = older.sent
    newer.check()


@pytest.mark.parametrize("offset", [0, 1, 1_000])
def test_offsets_of_the_consumer_group_decide_nothing(offset: int) -> None:
    """They are a mirror for lag tools: late by seconds, gone after a week, and anybody may reset them."""
    sums = Sums()
    sums.send(1, 2, 3)
    sums.driver.run()
    sums.driver.restart()
    sums.driver.broker.commit_offsets("sums.main", {TopicPartition("numbers", 0): offset})
    sums.send(4)
    sums.driver.run()
    sums.check()
