"""Whether a worker can be stopped while the others continue with its tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.names import GroupId
from pipeline.errors import InputError
from pipeline.runtime.status import AppStatus, TaskPhase, read_status, reasons_to_wait
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.fleet import Fleet


def look(fleet: Fleet) -> AppStatus:
    cluster, reader = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    return read_status("sums", cluster, reader, fleet.clock.wall_ms())


def test_each_of_two_workers_can_be_stopped_alone_but_not_both() -> None:
    """The remaining one takes all tasks; without it, processing stops."""
    found = look(Fleet.at_rest("a", "b"))
    assert reasons_to_wait(found, ["a"]) == []
    assert reasons_to_wait(found, ["b"]) == []
    assert reasons_to_wait(found, ["a", "b"]) == [
        "main/0-3: no worker can take them, there is no other live worker"
    ]


def test_the_only_worker_of_an_app_cannot_be_stopped() -> None:
    """Its tasks would wait until it is started again."""
    assert reasons_to_wait(look(Fleet.at_rest("a")), ["a"]) == [
        "main/0-3: no worker can take them, there is no other live worker"
    ]


def test_an_unknown_worker_is_not_safe_to_stop() -> None:
    """A mistyped name must not let a rolling restart continue."""
    found = look(Fleet.at_rest("a", "b"))
    with pytest.raises(InputError, match="c is not a live worker of sums") as refused:
        reasons_to_wait(found, ["a", "c"])
    assert refused.value.hint == "live workers: a, b"
    with pytest.raises(InputError, match="c, d are not live workers of sums"):
        reasons_to_wait(found, ["c", "d"])


def test_no_worker_is_stopped_until_the_tasks_of_the_last_one_are_live() -> None:
    """Two restores at once double the time without processing for their tasks."""
    fleet = Fleet.at_rest("a", "b", "c")
    fleet.kill(fleet.nodes[0])
    assert look(fleet)  # members are seen to be alive when they are listed
    fleet.clock.advance(11.0)
    reasons = []
    for _ in range(200):
        fleet.turn()
        found = look(fleet)
        reasons.append(reasons_to_wait(found, ["b"]))
        settled = all(status.phase is TaskPhase.LIVE for status in found.tasks)
        unlisted = "b" not in {worker.worker for worker in found.workers}
        assert (reasons[-1] == []) == (settled and not unlisted)
    assert reasons[0] != []
    assert any(reason.endswith((": unowned", ": restoring")) for each in reasons for reason in each)
    fleet.settle()
    assert reasons_to_wait(look(fleet), ["b"]) == []


def test_workers_of_another_version_do_not_count_as_successors() -> None:
    """They may have other tasks, so these might stop for good."""
    fleet = Fleet.at_rest("a")
    found = look(fleet)
    (only,) = found.workers
    later = replace(only, worker="b", process="9999999999999-x", waiting=True, rings={"main": "x"}, tasks=0)
    assert reasons_to_wait(replace(found, workers=[only, later]), ["a"]) == [
        "main/0-3: no worker can take them, the other live workers run another version of the app: b"
    ]
    assert reasons_to_wait(replace(found, workers=[only, later]), ["b"]) == []


def test_a_group_that_has_not_started_on_a_successor_is_a_reason() -> None:
    """The ring may assign the tasks to that worker, which cannot run them."""
    found = replace(look(Fleet.at_rest("a", "b")), deferred={GroupId("sums", "main"): ["b"]})
    (reason,) = reasons_to_wait(found, ["a"])
    assert reason.endswith(": group main has not started on b, which may get these tasks")
    assert reasons_to_wait(found, ["b"]) == []


def test_a_worker_that_does_not_run_the_group_is_no_successor() -> None:
    """It cannot take the tasks, however long it lives."""
    found = look(Fleet.at_rest("a"))
    (only,) = found.workers
    other = replace(only, worker="b", rings={"second": "2.64,4"}, tasks=0)
    both = replace(found, workers=[only, other])
    assert reasons_to_wait(both, ["a"]) == [
        "main/0-3: no worker can take them, no other live worker runs group main"
    ]
    assert reasons_to_wait(both, ["b"]) == []
