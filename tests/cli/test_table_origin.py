"""What `pipeline table show` says of the states that it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.table import missing_rows, read_line, require_task
from pipeline.core.names import GroupId, TaskChoice
from pipeline.core.records import iso_time
from pipeline.errors import InputError
from pipeline.runtime.status import read_status
from pipeline.testing.memory_clients import MemoryCluster, MemoryJournalReader
from tests.support.runtime.fleet import Fleet

GROUP = GroupId("sums", "main")


def test_states_elsewhere_and_behind_are_named_with_workers() -> None:
    """No rows, or old ones, would pass for the whole table."""
    fleet = Fleet(partitions=4)
    for worker in ("a", "b"):
        fleet.start(worker)
    fleet.send()
    fleet.settle()
    clients = MemoryCluster(fleet.broker), MemoryJournalReader(fleet.broker)
    now_ms = fleet.clock.wall_ms()
    last = {status.task.number: status for status in read_status("sums", *clients, now_ms).tasks}
    current = {number: status.seq for number, status in last.items()}
    assert missing_rows(GROUP, current, None, *clients, now_ms) == []

    partial = {0: current[0] - 1, 1: current[1], 2: current[2]}
    positions = f"its state is at entry {current[0] - 1}, its journal at {current[0]}"
    assert missing_rows(GROUP, partial, None, *clients, now_ms) == [
        f"not read, because there is no state of them here: task 3 (worker {last[3].worker})",
        f"task 0 is out of date here: {positions} (worker {last[0].worker})",
        f"to show the current rows of all tasks, from Kafka: --at {iso_time(now_ms)}",
    ]
    assert missing_rows(GROUP, partial, 1, *clients, now_ms) == []
    assert read_line(GROUP, {0: 1_000, 2: 7}, Path("state")) == (
        "read from state: tasks 0 (entry 1,000), 2 (entry 7) of sums/main"
    )


def test_a_task_that_does_not_exist_is_named() -> None:
    """The state directory never has a state of it, so a hint about the directory would mislead."""
    cluster = MemoryCluster(Fleet(partitions=4).broker)
    require_task(GROUP, TaskChoice(9), cluster)  # no worker has run: nothing is known
    cluster = MemoryCluster(Fleet.at_rest("a").broker)
    require_task(GROUP, TaskChoice(3), cluster)
    with pytest.raises(InputError, match="group sums/main has no task 4") as refused:
        require_task(GROUP, TaskChoice(4), cluster)
    assert refused.value.hint is not None
    assert "its tasks are 0 to 3" in refused.value.hint
