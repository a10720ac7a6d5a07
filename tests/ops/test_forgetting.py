"""A group whose journal is beyond repair is forgotten, and begins again as a new one."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.ops.apps import forget_group, traces_of
from pipeline.testing.memory_clients import MemoryCluster
from tests.support.runtime.sums import Sum, Sums

TRACES = ["topic sums.main.journal", "topic pipeline.workers.sums", "consumer group sums.main"]


@pytest.mark.unverified
def test_a_forgotten_group_handles_its_input_from_the_beginning() -> None:
    """A start is refused while any trace shows that the group has worked; after this there is none."""
    sums = Sums()
    sums.send(1, 2, 3)
    sums.driver.run()
    sums.driver.stop()
    cluster = MemoryCluster(sums.driver.broker)
    group = sums.task.group_id
    assert traces_of(group, cluster) == TRACES
    told: list[str] = []
    forget_group(group, cluster, told.append)
    assert told == [f"{trace}: deleted" for trace in TRACES]
    assert traces_of(group, cluster) == []
    forget_group(group, cluster, told.append)  # the same after it was interrupted
    assert len(told) == len(TRACES)
    sums.driver.restart(empty_disk=True)
    sums.driver.run()
    assert sums.driver.table(sums.totals) == {"a": Sum(3, 6)}
    assert len(sums.driver.outputs(sums.sums)) == 6  # produced again, behind the old ones


def test_a_group_is_not_forgotten_under_its_workers() -> None:
    """They would continue with a deleted journal."""
    sums = Sums()
    sums.send(1)
    sums.driver.run()
    with pytest.raises(ConfigError, match="app sums has 1 worker that") as caught:
        traces_of(sums.task.group_id, MemoryCluster(sums.driver.broker))
    assert "pipeline status sums" in (caught.value.hint or "")
