"""One checkpoint on its way to the store: what is read and sent again, what ends it, and what it leaves on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from pipeline.errors import RetriableError
from pipeline.runtime.checkpoints.upload import CheckpointUpload, Throttle, UploadCache
from pipeline.runtime.task.task import Task
from pipeline.testing.memory_store import MemorySnapshot
from tests.support.runtime.checkpointed import (
    AWAY,
    check_restored_from_a_checkpoint,
    kept,
    manifest,
    with_history,
)
from tests.support.runtime.sums import Sums


class Sent:
    """The objects that were written, by name. `refuse`: the number of the write that fails, once."""

    def __init__(self, sums: Sums, refuse: int = 0) -> None:
        self.names: list[str] = []
        self._put = sums.driver.checkpoints.put
        self._refuse = refuse
        sums.driver.checkpoints.put = self.put  # type: ignore[method-assign]

    def put(self, name: str, content: Iterable[bytes], size: int) -> None:
        self._refuse -= 1
        if self._refuse == 0:
            raise AWAY
        self._put(name, content, size)
        self.names.append(name)


def attempt(sums: Sums) -> CheckpointUpload:
    """Another checkpoint of the live task."""
    (run,) = sums.driver.worker.runs
    task, environment, store = run.tasks[0], sums.driver.environment(), sums.driver.checkpoints
    assert isinstance(task, Task)
    return CheckpointUpload(
        task.id, "w", task.store, store, environment, 60.0, Throttle(0, environment.clock), UploadCache()
    )


def test_what_has_arrived_is_not_sent_again() -> None:
    """A state of many gigabytes would never get through a network that is cut once an hour."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_grace_s=60.0)
    for key in range(8):
        sums.send(1, key=f"new-{key}")
    sent = Sent(sums, refuse=3)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert len(sums.driver.log_events("checkpoint_store_available")) == 1
    assert len(sent.names) > 3
    assert set(Counter(sent.names).values()) == {1}
    check_restored_from_a_checkpoint(sums)


@pytest.mark.parametrize("left", [0, 3])
def test_an_object_that_did_not_arrive_whole_is_made_under_another_name(left: int) -> None:
    """The first request may still be on its way; and what a manifest names must be there before it counts."""
    sums = with_history(checkpoint_interval_s=60.0, checkpoint_grace_s=60.0)
    store, spoilt = sums.driver.checkpoints, list[str]()
    put = store.put

    def spoiling(name: str, content: Iterable[bytes], size: int) -> None:
        put(name, content, size)
        if not spoilt and left:
            store.damage(name, lambda data: data[:left])
        elif not spoilt:
            store.delete([name])
        spoilt.append(name)

    store.put = spoiling  # type: ignore[method-assign]
    sums.send(1)
    sums.driver.run()
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    newest = kept(sums)[0]
    assert spoilt[0].rpartition("objects/")[2] not in {
        name.removeprefix("objects/") for name in manifest(sums, newest).objects
    }
    check_restored_from_a_checkpoint(sums, newest.seq)


def test_a_file_that_reads_differently_a_second_time_is_in_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the disk returned other bytes later, the manifest would have a hash that no restore matches."""
    sums = with_history(checkpoint_interval_s=60.0)
    newest, reads, read = kept(sums)[0], Counter[str](), MemorySnapshot.read

    def changing(snapshot: MemorySnapshot, name: str) -> Iterator[bytes]:
        reads[name] += 1
        for piece in read(snapshot, name):
            yield piece if reads[name] != 2 else bytes(len(piece))

    with monkeypatch.context() as patch:
        patch.setattr(MemorySnapshot, "read", changing)
        sums.send(1)
        sums.driver.run()
        assert kept(sums)[0] == newest
    (said,) = sums.driver.log_events("checkpoint_failed")
    assert "changed while it was uploaded" in said["message"]
    sums.driver.clock.advance(10.0)
    sums.driver.run()
    assert kept(sums)[0].seq > newest.seq
    check_restored_from_a_checkpoint(sums)


def test_what_is_known_of_a_file_or_a_manifest_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint a minute of a large state would otherwise read all of it from the disk each time."""
    sums = with_history()
    files, gets = Counter[str](), list[str]()
    read, get = MemorySnapshot.read, sums.driver.checkpoints.get

    def counting(snapshot: MemorySnapshot, name: str) -> Iterator[bytes]:
        files[name] += 1
        return read(snapshot, name)

    def getting(name: str) -> Iterator[bytes]:
        gets.append(name)
        return get(name)

    monkeypatch.setattr(MemorySnapshot, "read", counting)
    sums.driver.checkpoints.get = getting  # type: ignore[method-assign]
    sums.send(1, key="k0")
    sums.driver.run()
    sums.send(1, key="k0")
    sums.driver.run()
    assert gets == []
    changed = {name for name, count in files.items() if count}
    assert len(changed) == 2  # the file of that key, and the position
    assert set(files.values()) == {4}  # twice each: hashed, then sent


@pytest.mark.parametrize("when", ["before it reads", "while it sends"])
def test_an_upload_of_a_task_that_is_gone_ends_early(when: str) -> None:
    """After a task has moved away, its upload must not use disk and network for minutes."""
    sums = with_history(checkpoint_interval_s=60.0)
    sums.send(5)
    sums.driver.run()
    made, names = attempt(sums), sums.driver.checkpoints.names()
    put = sums.driver.checkpoints.put

    def stopping(name: str, content: Iterable[bytes], size: int) -> None:
        made.stopped = True
        put(name, content, size)

    if when == "before it reads":
        made.stopped = True
    sums.driver.checkpoints.put = stopping  # type: ignore[method-assign]
    with pytest.raises(RetriableError, match="is abandoned"):
        made.run()
    made.close()
    assert sums.driver.checkpoints.names() == names
