"""Random histories of an app with a window: events of several partitions, crashes, lost disks, pauses and stops."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from pipeline.core.names import GroupId, TaskId
from pipeline.ports import Step
from pipeline.runtime.environment import NoSteps
from pipeline.runtime.restore.restore import catch_up
from pipeline.testing import MemoryBroker, TestDriver
from pipeline.testing.memory_store import MemoryStores
from tests.support.runtime.steps import OWNER_STEPS
from tests.support.runtime.window_app import START_MS, WindowApp

__all__ = ["PARTITIONS", "Sent", "Trouble", "WindowHistory", "histories", "suffer"]

PARTITIONS = 4


@dataclass(frozen=True)
class Sent:
    """Events of one partition. `gap_ms`: after the event before; `jitter_ms`: out of order by so much."""

    partition: int
    key: str
    gap_ms: int
    jitter_ms: int
    other: bool


@dataclass(frozen=True)
class Trouble:
    """What happens after the events. `wall_ms`: how far the wall clock is set back or forth.

    `standby`: a worker whose copies were made from the journals continues, instead of the same one.
    """

    crash: tuple[Step, int] | None
    empty_disk: bool
    pause_s: float
    wall_ms: int
    stop: bool
    standby: bool


events = st.lists(
    st.builds(
        Sent,
        st.integers(0, PARTITIONS - 1),
        st.sampled_from("abc"),
        st.sampled_from([0, 10, 500, 3_000, 40_000]),
        st.sampled_from([0, 0, 0, -1_000, -15_000, -70_000]),
        st.booleans(),
    ),
    max_size=30,
)
troubles = st.builds(
    Trouble,
    st.none() | st.tuples(st.sampled_from(OWNER_STEPS), st.integers(1, 2)),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 5.0, IDLE_S + 30.0]),
    st.sampled_from([0, 0, -30_000, 30_000, -600_000]),
    st.booleans(),
    st.booleans(),
)
histories = st.lists(st.tuples(events, troubles), min_size=1, max_size=4)


def suffer(driver: TestDriver, trouble: Trouble) -> None:
    """Let it happen, and start the worker again."""
    if trouble.crash is not None:
        step, nth = trouble.crash
        driver.crash_at(step, nth=nth)
    if trouble.wall_ms:
        driver.clock.set_wall_ms(driver.clock.wall_ms() + trouble.wall_ms)
    driver.advance(trouble.pause_s)
    if trouble.stop and not driver.crashed:
        driver.stop()
    copies = _copies(driver) if trouble.standby else None
    driver.restart(empty_disk=trouble.empty_disk)
    if copies is not None:
        driver.stores = copies


def _copies(driver: TestDriver) -> MemoryStores:
    """The disk of a standby: a copy of each task that has a journal, as far as it is committed."""
    stores = MemoryStores()
    environment = replace(driver.environment(), stores=stores, steps=NoSteps())  # it does not crash
    group = GroupId(driver.app.name, "main")
    journal = driver.broker.describe(group.journal_topic)
    reader = environment.journals()
    for number in range(journal.partitions if journal is not None else 0):
        task = TaskId(*group, number)
        if reader.bounds(task.journal).stable_end > 0:
            copy, _, _ = catch_up(task, MemoryBroker.cluster_id, None, environment)
            if copy is not None:
                copy.close()
    return stores


class WindowHistory:
    """What happens to an app."""

    def __init__(self, app: WindowApp, tasks: int, *, deferred: bool, seed: int, limit: int) -> None:
        self.app = app
        limits = WorkerSettings(worker_id="test", max_poll_records=limit, max_records_per_commit=limit)
        self.driver = TestDriver(
            self.app.app, partitions=PARTITIONS, tasks=tasks, deferred=deferred, seed=seed, settings=limits
        )
        self.sent: dict[int, tuple[str, int]] = {}  # key and time of each event
        self.now_ms: dict[int, int] = defaultdict(lambda: START_MS)

    def send(self, sent: list[Sent]) -> None:
        for each in sent:
            self.now_ms[each.partition] += each.gap_ms
            at_ms = max(START_MS, self.now_ms[each.partition] + each.jitter_ms)
            number = len(self.sent)
            if each.other:
                self.driver.send(self.app.other, each.key, 0, timestamp_ms=at_ms, partition=each.partition)
                continue
            key = f"{each.partition}{each.key}"  # the partition of a result is that of its key
            self.sent[number] = key, at_ms
            self.driver.send(self.app.events, key, number, timestamp_ms=at_ms, partition=each.partition)

    def suffer(self, trouble: Trouble) -> None:
        suffer(self.driver, trouble)

    def end(self) -> None:
        """All inputs are idle, and the clock passes the last window."""
        self.driver.clock.set_wall_ms(START_MS + 36_000_000)
        self.driver.advance(IDLE_S + 300.0)
