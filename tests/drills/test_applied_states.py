"""What a worker has applied must be in its journal: otherwise a confirmed commit is lost, and a drill says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, encode_position
from pipeline.drills.runner import check_applied_states
from pipeline.drills.workers import LocalWorker, Process
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.commit.journal_reader import last_entries
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.drills.scenes import APP, observer_of
from tests.support.runtime.fleet import Fleet


@pytest.mark.parametrize("lost", [False, True])
def test_an_applied_entry_that_the_journal_lacks_is_a_loss(tmp_path: Path, lost: bool) -> None:
    """No later entry shows that the last one is missing. Only the worker that has applied it knows."""
    fleet = Fleet.at_rest("a", "b")
    observer = observer_of(fleet)
    task = next(status.task for status in observer.samples[-1].status.tasks if status.worker == "a")
    reader = MemoryJournalReader(fleet.broker)
    (last,) = last_entries(task.journal, reader, reader.bounds(task.journal), 1)
    applied = AppliedPosition(
        last.entry.seq,
        last.offset,
        last.next_offset,
        b"x" * 16 if lost else last.chain,
        {topic: position + 5 for topic, position in last.entry.positions.items()},
        Identity("cluster", "murmur2", {}, {}, ""),
    )
    _write(tmp_path, task, applied)
    worker = LocalWorker(
        "a", "a", Process.of(os.getpid()), tmp_path / APP, ("pipeline",), Path("/"), None, False
    )
    check_applied_states(observer, [worker], fleet.clock)
    effects = observer.judge.verdict().effects
    assert [effect.kind for effect in effects] == (["loss"] if lost else [])
    if lost:
        assert f"worker a has applied entry {last.entry.seq}" in effects[0].text


def _write(directory: Path, task: TaskId, applied: AppliedPosition) -> None:
    store = RocksStores(directory, 1 << 20).open(task)
    store.apply({b"row": b"1"}, encode_position(applied))
    store.close()
