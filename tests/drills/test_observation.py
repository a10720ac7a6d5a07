"""What an observer makes of the journals and of the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId, TopicPartition
from pipeline.drills.judge import SeenEntry
from pipeline.drills.observation import Observer
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.drills.scenes import APP, observer_of
from tests.support.runtime.fleet import Fleet
from tests.support.runtime.several import Several

TASK = TaskId(APP, "main", 0)


@pytest.mark.parametrize(
    ("commits", "lags", "pause_s"),
    [
        ([1_000, 1_200, 4_200], [], 3.0),
        ([1_000, 4_000], [(2_000, 0), (3_500, 0)], 0.5),  # without input until 3.5 s
        ([1_000, 4_000], [(2_000, 0), (3_500, 7)], 2.0),
        ([1_000, 4_000], [(500, 0), (4_500, 0)], 3.0),
        ([1_000], [], 0.0),
        ([], [], 0.0),
    ],
)
def test_a_pause_does_not_include_the_time_without_input(
    commits: list[int], lags: list[tuple[int, int]], pause_s: float
) -> None:
    """A task whose key is rare would otherwise make every drill deviate."""
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.send()
    fleet.settle()
    observer = observer_of(fleet)
    history = observer._histories[TASK]
    history.entries[:] = [SeenEntry(EntryKind.COMMIT, 2, "a", {}, at, 0, b"") for at in commits]
    history.lags[:] = lags
    assert observer.pause_s(TASK, 900, 5_000) == pytest.approx(pause_s)


def test_a_late_answer_to_the_driller_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on the same busy machine wait as long, and a drill must not deviate for that."""
    fleet = Fleet.at_rest("a")
    observer = observer_of(fleet)
    began_ms = fleet.clock.wall_ms()
    answer = observer._reader.stable_ends

    def late(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        fleet.clock.advance(4.0)
        return answer(partitions)

    monkeypatch.setattr(observer._reader, "stable_ends", late)
    observer.look()
    ended_ms = fleet.clock.wall_ms()
    assert 4.0 <= observer.slowest_look_s(began_ms, ended_ms) < 20.0
    assert observer.slowest_look_s(ended_ms + 1, ended_ms + 2) == 0.0


def test_entries_that_were_deleted_unread_are_skipped_and_told() -> None:
    """A driller on a busy machine can be slower than the checkpoints, after which journals are truncated."""
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.send()
    fleet.settle()
    observer = observer_of(fleet)
    for _ in range(6):
        fleet.send()
        fleet.settle()
    end = fleet.broker.bounds(TASK.journal)[2]
    fleet.broker.truncate(TASK.journal, end - 3)
    since_ms = fleet.clock.wall_ms()
    observer.look()
    assert observer.has_skipped(TASK, since_ms)
    assert observer.problems == {}
    (gap,) = observer.gaps
    assert "main/0 was truncated while the drill could not read it" in gap
    fleet.send()
    fleet.settle()
    observer.look()
    assert observer.entries(TASK)
    assert observer.judge.effects == []


def test_a_partition_is_found_in_the_task_that_reads_it() -> None:
    """A drill that sends a record waits for the task of its partition, whatever the number of tasks is."""
    several = Several.begun()
    broker = several.driver.broker
    observer = Observer("several", MemoryCluster(broker), MemoryJournalReader(broker), several.driver.clock)
    sample = observer.begin()
    assert sample.that_read(["main", "other"], 5) == [several.task(1)]
    assert sample.that_read(["main"], 6) == []
