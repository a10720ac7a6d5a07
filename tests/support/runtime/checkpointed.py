"""The sums app with an in-memory checkpoint store, and access to its checkpoints."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import WorkerSettings
from pipeline.core.checkpoint import Manifest
from pipeline.core.checkpoint_refs import CheckpointRef, kept_checkpoints
from pipeline.core.journal_format import EntryKind, JournalEntry
from pipeline.core.names import checkpoint_prefix
from pipeline.errors import CheckpointStoreError
from pipeline.runtime.commit.journal_reader import read_entries
from pipeline.runtime.restore.restore_source import read_manifest
from pipeline.testing import MemoryBroker
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.runtime.sums import Sums

__all__ = ["AWAY", "EAGER", "begins_at", "eager", "entries", "kept", "manifest", "prefix", "with_history"]

# A checkpoint after every commit, and no minimum age for deletions.
EAGER = WorkerSettings(
    worker_id="test",
    checkpoint_store="memory",
    checkpoint_interval_s=0.05,
    checkpoint_journal_bytes=1,
    checkpoint_grace_s=0.0,
)
AWAY = CheckpointStoreError("the store does not answer")


def eager(*, partitions: int = 1, deferred: bool = False, **changes: object) -> Sums:
    """EAGER with the fields in `changes` replaced."""
    settings = replace(EAGER, **changes)  # type: ignore[arg-type]
    return Sums(partitions=partitions, deferred=deferred, settings=settings)


def entries(sums: Sums) -> list[JournalEntry]:
    reader = MemoryJournalReader(sums.driver.broker)
    bounds = reader.bounds(sums.task.journal)
    return list(read_entries(sums.task, reader, bounds.start, bounds.stable_end, None))


def kept(sums: Sums) -> tuple[CheckpointRef, ...]:
    """The checkpoints that the journal keeps, newest first."""
    found = [entry for entry in entries(sums) if entry.entry.kind is EntryKind.CHECKPOINT]
    return kept_checkpoints(found[-1]) if found else ()


def prefix(sums: Sums) -> str:
    return checkpoint_prefix(MemoryBroker.cluster_id, sums.task)


def manifest(sums: Sums, ref: CheckpointRef) -> Manifest:
    return read_manifest(sums.driver.checkpoints, MemoryBroker.cluster_id, sums.task, ref)


def begins_at(sums: Sums) -> int:
    return MemoryJournalReader(sums.driver.broker).bounds(sums.task.journal).start


def with_history(commits: int = 6, **changes: object) -> Sums:
    """The app after several commits with several keys, each followed by a checkpoint."""
    sums = eager(**changes)  # type: ignore[arg-type]
    for number in range(commits):
        sums.send(number, key=f"k{number % 4}")
        sums.driver.run()
    return sums


def check_restored_from_a_checkpoint(sums: Sums, seq: int | None = None) -> None:
    """Check that a start on an empty disk restores from the checkpoint at `seq`."""
    sums.driver.restart(empty_disk=True)
    sums.send(7)
    sums.driver.run()
    live = sums.driver.log_events("task_live")[-1]
    assert live["restored_from"] == "a checkpoint"
    if seq is not None:
        assert live["seq"] - live["replayed_entries"] - 1 == seq
    sums.check()
