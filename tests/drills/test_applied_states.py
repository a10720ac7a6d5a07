"""What a worker has applied must be in its journal: otherwise a confirmed commit is lost, and a drill says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, encode_position
from pipeline.drills.report import Effect
from pipeline.drills.runner import check_applied_states
from pipeline.drills.workers import LocalWorker, Process
from pipeline.rocksdb.rocks import RocksStores
from pipeline.runtime.commit.journal_reader import last_entry
from pipeline.testing.memory_clients import MemoryJournalReader
from tests.support.drills.scenes import APP, observer_of
from tests.support.runtime.fleet import Fleet


@pytest.mark.parametrize("lost", [False, True])
def test_an_applied_entry_that_the_journal_lacks_is_a_loss(tmp_path: Path, lost: bool) -> None:
    """No later entry shows that the last one is missing. Only the worker that has applied it knows."""
    fleet = Fleet.at_rest("a", "b")
    applied = _applied(fleet, "a", chain=b"x" * 16 if lost else None)
    effects = _checked(fleet, tmp_path, applied)
    assert [effect.kind for effect in effects] == (["loss"] if lost else [])
    if lost:
        assert f"worker a has applied entry {applied.position.seq}" in effects[0].text


def test_a_state_of_a_task_that_moved_away_is_not_compared(tmp_path: Path) -> None:
    """A worker keeps the local state of a task that it has lost for some time, and others continue the journal."""
    fleet = Fleet.at_rest("a", "b")
    assert _checked(fleet, tmp_path, _applied(fleet, "b", chain=b"x" * 16)) == []


def test_an_entry_beyond_what_was_read_is_not_a_loss(tmp_path: Path) -> None:
    """Kafka may be unreachable for the driller at the end, and it cannot know what the journal has."""
    fleet = Fleet.at_rest("a", "b")
    assert _checked(fleet, tmp_path, _applied(fleet, "a", chain=b"x" * 16, later=100)) == []


class _Applied(NamedTuple):
    task: TaskId
    position: AppliedPosition


def _applied(fleet: Fleet, owner: str, *, chain: bytes | None, later: int = 0) -> _Applied:
    """The last entry of a task of this worker, or one with another chain value or a later offset."""
    observer = observer_of(fleet)
    task = next(status.task for status in observer.samples[-1].status.tasks if status.worker == owner)
    reader = MemoryJournalReader(fleet.broker)
    last = last_entry(task.journal, reader)
    assert last is not None
    position = AppliedPosition(
        last.entry.seq,
        last.offset + later,
        last.next_offset + later,
        chain or last.chain,
        {topic: position + 5 for topic, position in last.entry.positions.items()},
        Identity("cluster", "murmur2", {}, {}, ""),
    )
    return _Applied(task, position)


def _checked(fleet: Fleet, directory: Path, applied: _Applied) -> list[Effect]:
    """The effects, if this state is in the directory of worker `a`."""
    store = RocksStores(directory, 1 << 20).open(applied.task)
    store.apply({b"row": b"1"}, encode_position(applied.position))
    store.close()
    worker = LocalWorker(
        "a", "a", Process.of(os.getpid()), directory / APP, ("pipeline",), Path("/"), None, False
    )
    observer = observer_of(fleet)
    check_applied_states(observer, [worker], fleet.clock)
    return observer.judge.verdict().effects
