"""Random streams into a history: what each event sees is what a fold over the events before it gives.

The fold knows the rules and nothing of rows, buckets or commits. It takes the order of the events of a key, and the
clock that each of them saw, from the outputs: the clock depends on how the records of two topics interleave.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from pipeline.ports import Step
from tests.support.runtime.history_app import KEEP_S, HistoryApp, Seen
from tests.support.runtime.steps import OWNER_STEPS
from tests.support.runtime.window_app import START_MS

pytestmark = pytest.mark.unverified  # what an event sees is made from several records

PARTITIONS, MOST = 2, 3

sends = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1),
        st.sampled_from("ab"),
        st.sampled_from([0, 10, 900, 7_000, 31_000]),
        st.sampled_from([0, 0, 0, -900, -20_000, -70_000]),
        st.integers(0, 4),
    ),
    max_size=25,
)
troubles = st.tuples(
    st.none() | st.tuples(st.sampled_from(OWNER_STEPS), st.integers(1, 2)),
    st.sampled_from([0.0, 0.0, 5.0, IDLE_S + 30.0]),
    st.sampled_from(["crash", "empty disk", "stop"]),
)


@settings(max_examples=40)
@given(
    history=st.lists(st.tuples(sends, troubles), min_size=1, max_size=4),
    tasks=st.sampled_from([1, PARTITIONS]),
    batch=st.booleans(),
    deferred=st.booleans(),
    limit=st.sampled_from([1, 3, 1_000]),
)
def test_each_event_sees_the_values_of_a_fold(
    history: list[tuple[list[tuple[int, str, int, int, int]], tuple[tuple[Step, int] | None, float, str]]],
    tasks: int,
    batch: bool,
    deferred: bool,
    limit: int,
) -> None:
    """Whatever crashes, and however many tasks there are; in the end, no row is left."""
    app = HistoryApp(other=True, batch=batch, max_values=MOST)
    limits = WorkerSettings(worker_id="test", max_poll_records=limit, max_records_per_commit=limit)
    driver = app.driver(partitions=PARTITIONS, tasks=tasks, deferred=deferred, settings=limits)
    now_ms, sent = [START_MS] * PARTITIONS, 0
    for events, (crash, pause_s, how) in history:
        for partition, name, gap_ms, jitter_ms, other in events:
            now_ms[partition] += gap_ms
            at_ms = max(START_MS, now_ms[partition] + jitter_ms)
            if other == 0:
                driver.send(app.other, name, 0, timestamp_ms=at_ms, partition=partition)
                continue
            driver.send(app.events, f"{partition}{name}", sent, timestamp_ms=at_ms, partition=partition)
            sent += 1
        if crash is not None:
            driver.crash_at(crash[0], nth=crash[1])
        driver.advance(pause_s)
        if how == "stop" and not driver.crashed:
            driver.stop()
        driver.restart(empty_disk=how == "empty disk")
    driver.advance(3 * KEEP_S + 2 * IDLE_S)
    outputs = driver.outputs(app.seen)
    assert Counter(event.value.number for event in outputs) == Counter(range(sent))
    kept: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in outputs:
        check(kept[event.key], event.value)
    assert driver.history(app.history) == {}
    contents = [driver.stores.contents(task) for task in driver.stores.positions()]
    assert all(key.endswith(b"\x00tc") for rows in contents for key in rows)


def check(kept: list[tuple[int, int]], seen: Seen) -> None:
    """Compare with `kept`: (time, number) of the events of the key so far, in the order of arrival."""
    oldest_ms = seen.clock_ms - KEEP_S * 1000
    assert seen.added == (seen.at_ms >= oldest_ms)
    if seen.added:
        kept.append((seen.at_ms, seen.number))
        half_ms = KEEP_S * 500
        same = [item for item in kept if item[0] // half_ms == seen.at_ms // half_ms]
        if len(same) > MOST:
            kept.remove(min(same, key=lambda item: item[0]))
    first_ms = max(seen.at_ms - 30_000, oldest_ms)
    expected = [item for item in kept if first_ms <= item[0] <= seen.at_ms]
    assert seen.values == sorted(expected, key=lambda item: item[0])
