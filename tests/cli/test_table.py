"""`pipeline table show` where several processes keep their states under one directory."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.table import _places
from pipeline.config import WorkerSettings
from pipeline.core.journal_format import Identity
from pipeline.core.names import TaskId
from pipeline.core.position import AppliedPosition, encode_position
from pipeline.rocksdb.rocks import RocksStores

IDENTITY = Identity("cluster", "murmur2_random", {}, {}, "")


def applied(directory: Path, partition: int, seq: int) -> None:
    """A state of the task that stands at entry `seq`."""
    store = RocksStores(directory, 1 << 20).open(TaskId("app", "main", partition))
    store.apply({}, encode_position(AppliedPosition(seq, seq, seq + 1, bytes(16), {}, IDENTITY)))
    store.close()


def test_of_several_copies_of_a_task_the_one_that_has_applied_most_is_shown(tmp_path: Path) -> None:
    """Tasks move between the processes of one supervisor and leave their old states behind."""
    applied(tmp_path / "process.1", 0, 9)
    applied(tmp_path / "process.2", 0, 12)
    applied(tmp_path / "process.2", 1, 3)
    applied(tmp_path, 1, 7)  # from before there were processes
    places = _places(WorkerSettings(state_dir=tmp_path), TaskId("app", "main", 0).group_id)
    found = {
        number: stores.path(TaskId("app", "main", number)).relative_to(tmp_path)
        for number, stores in places.items()
    }
    assert found == {0: Path("process.2/app/main/0"), 1: Path("app/main/1")}
