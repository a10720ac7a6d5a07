"""Random histories of timers: each fires once, at its time, before the next record, whatever crashes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from pipeline.ports import Step
from tests.support.runtime.steps import OWNER_STEPS
from tests.support.runtime.timer_app import START_MS, Order, TimerApp, TimerFold

pytestmark = pytest.mark.unverified  # outputs of timers are made from no record

PARTITIONS = 3
BROKEN = "bad"


@dataclass(frozen=True)
class Sent:
    """A record of a partition, `gap_s` after the one before. `delay_s`: from its time to the timer; None cancels."""

    partition: int
    gap_s: int
    key: str
    delay_s: int | None


@dataclass(frozen=True)
class Trouble:
    """What happens after the records."""

    crash: tuple[Step, int] | None
    empty_disk: bool
    pause_s: float
    stop: bool


sent = st.lists(
    st.builds(
        Sent,
        st.integers(0, PARTITIONS - 1),
        st.sampled_from([0, 0, 1, 5, 20, 60]),
        st.sampled_from(["", "a", "b", "c", "again", BROKEN]),
        st.none() | st.sampled_from([-10, 0, 1, 5, 15, 30]),
    ),
    max_size=25,
)
troubles = st.builds(
    Trouble,
    st.none() | st.tuples(st.sampled_from(OWNER_STEPS), st.integers(1, 2)),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 5.0, IDLE_S + 25.0]),
    st.booleans(),
)


@settings(max_examples=40)
@given(
    history=st.lists(st.tuples(sent, troubles), min_size=1, max_size=4),
    tasks=st.sampled_from([1, 2, PARTITIONS]),
    batch=st.booleans(),
    deferred=st.booleans(),
    seed=st.integers(0, 1_000),
    limit=st.sampled_from([1, 3, 1_000]),
)
def test_each_timer_fires_once_at_its_time_and_before_the_next_record(
    history: list[tuple[list[Sent], Trouble]],
    tasks: int,
    batch: bool,
    deferred: bool,
    seed: int,
    limit: int,
) -> None:
    """Whatever crashes, pauses, and however many tasks there are. The expected order is that of a fold."""
    app = TimerApp(batch=batch, on_error="dead_letter")
    app.broken = {f"{BROKEN}{partition}" for partition in range(PARTITIONS)}
    limits = WorkerSettings(worker_id="test", max_poll_records=limit, max_records_per_commit=limit)
    driver = app.driver(partitions=PARTITIONS, tasks=tasks, deferred=deferred, seed=seed, settings=limits)
    now_s = dict.fromkeys(range(PARTITIONS), 100)
    for records, trouble in history:
        for each in records:
            now_s[each.partition] += each.gap_s
            at_s = now_s[each.partition]
            key = f"{each.key}{each.partition}" if each.key else ""
            due_s = None if each.delay_s is None else at_s + each.delay_s
            app.send(driver, at_s, key, due_s, each.partition)
        if trouble.crash is not None:
            driver.crash_at(trouble.crash[0], nth=trouble.crash[1])
        driver.advance(trouble.pause_s)
        if trouble.stop and not driver.crashed:
            driver.stop()
        driver.restart(empty_disk=trouble.empty_disk)
    driver.clock.set_wall_ms(START_MS + 36_000_000)
    driver.advance(IDLE_S + 300.0)

    failed = 0
    for partition in range(PARTITIONS):
        fold = TimerFold(frozenset(app.broken))
        orders: dict[int, Order] = {order.number: order for at, order in app.sent if at == partition}
        fold.check(app.happened(driver, partition), orders)
        failed += len(fold.failed)
    assert driver.timers(app.alarms) == {}
    assert len(driver.dead_letters()) == failed
