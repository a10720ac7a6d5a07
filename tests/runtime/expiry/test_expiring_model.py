"""Random streams into a table with a time-to-live: what each event sees is what a fold over the events before it gives.

The fold keeps the time of each write and knows nothing of rows, entries or commits. It takes the order of the events of
a partition, and the clock that each of them saw, from the outputs.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from pipeline.ports import Step
from tests.support.runtime.expiring_app import TTL_S, ExpiringApp, Seen
from tests.support.runtime.steps import OWNER_STEPS
from tests.support.runtime.window_app import START_MS

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

PARTITIONS = 2
OPS = ["set", "set", "get", "get", "read", "many", "del", "fail"]

sends = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1),
        st.sampled_from("abc"),
        st.sampled_from([0, 10, 900, 7_000, 31_000, 61_000]),
        st.sampled_from([0, 0, 0, -900, -20_000, -70_000]),
        st.sampled_from([*OPS, "other"]),
    ),
    max_size=25,
)
troubles = st.tuples(
    st.none() | st.tuples(st.sampled_from(OWNER_STEPS), st.integers(1, 2)),
    st.sampled_from([0.0, 0.0, 5.0, IDLE_S + 40.0]),
    st.sampled_from(["crash", "empty disk", "stop"]),
)


@settings(max_examples=40)
@given(
    history=st.lists(st.tuples(sends, troubles), min_size=1, max_size=4),
    tasks=st.sampled_from([1, PARTITIONS]),
    mutable=st.booleans(),
    deferred=st.booleans(),
    limit=st.sampled_from([1, 3, 1_000]),
    checkpoints=st.booleans(),
)
def test_each_event_sees_the_rows_of_a_fold(
    history: list[tuple[list[tuple[int, str, int, int, str]], tuple[tuple[Step, int] | None, float, str]]],
    tasks: int,
    mutable: bool,
    deferred: bool,
    limit: int,
    checkpoints: bool,
) -> None:
    """Whatever crashes, and however many tasks there are; in the end, neither rows nor entries are left."""
    app = ExpiringApp(other=True, mutable=mutable)
    limits = WorkerSettings(
        worker_id="test",
        max_poll_records=limit,
        max_records_per_commit=limit,
        cache_bytes=1_000,
        checkpoint_store="memory" if checkpoints else "",
        checkpoint_interval_s=0.05,
        checkpoint_journal_bytes=1,
    )
    driver = app.driver(partitions=PARTITIONS, tasks=tasks, deferred=deferred, settings=limits)
    now_ms, sent = [START_MS] * PARTITIONS, Counter[int]()
    for events, (crash, pause_s, how) in history:
        for partition, key, gap_ms, jitter_ms, op in events:
            now_ms[partition] += gap_ms
            at_ms = max(START_MS, now_ms[partition] + jitter_ms)
            if op == "other":
                driver.send(app.other, key, 0, timestamp_ms=at_ms, partition=partition)
                continue
            number = len(sent)
            sent[number] = op != "fail"
            driver.send(app.events, key, f"{op} {number}", timestamp_ms=at_ms, partition=partition)
        if crash is not None:
            driver.crash_at(crash[0], nth=crash[1])
        driver.advance(pause_s)
        if how == "stop" and not driver.crashed:
            driver.stop()
        driver.restart(empty_disk=how == "empty disk")
    driver.run()
    seen: dict[str, list[Seen]] = defaultdict(list)
    for event in driver.outputs(app.seen):
        seen[event.key].append(event.value)
    assert Counter(each.number for of_one in seen.values() for each in of_one) == +sent
    for of_one in seen.values():
        fold(of_one)
    driver.advance(3 * TTL_S + 2 * IDLE_S)
    assert app.kept(driver) == 0


def fold(events: list[Seen]) -> None:
    """Compare with the writes so far, of the events of one partition in the order of arrival."""
    rows: dict[str, tuple[int, int]] = {}  # number and time of the last write
    for seen in events:
        alive = {key: number for key, (number, at_ms) in rows.items() if seen.clock_ms < at_ms + TTL_S * 1000}
        assert seen.rows == alive
        if seen.op in {"get", "read", "many"}:
            assert seen.value == alive.get(seen.key)
        if seen.op == "del":
            rows.pop(seen.key, None)
        elif seen.op != "read":
            rows[seen.key] = seen.number, max(seen.at_ms, seen.clock_ms)
