"""Random histories of a window: each event is in one closed window or late once, and each window closes once.

The expected results are those of the rules, computed from the events alone. Which events are late depends on when the
worker has read them, so the late ones are taken from the topic of late events. All others must be in the windows that
their times say, in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Event
from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from pipeline.ports import Step
from pipeline.testing import TestDriver
from tests.support.runtime.steps import OWNER_STEPS
from tests.support.runtime.window_app import START_MS, Numbers, WindowApp

pytestmark = pytest.mark.unverified  # a closed window is made from several records

PARTITIONS, SIZE_MS = 4, 60_000


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
    """What happens after the events. `wall_ms`: how far the wall clock is set back or forth."""

    crash: tuple[Step, int] | None
    empty_disk: bool
    pause_s: float
    wall_ms: int
    stop: bool


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
)
histories = st.lists(st.tuples(events, troubles), min_size=1, max_size=4)


class History:
    """One history, and what it must lead to."""

    def __init__(self, tasks: int, *, batch: bool, deferred: bool, seed: int, limit: int) -> None:
        self.app = WindowApp(other=True, batch=batch)
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
        driver = self.driver
        if trouble.crash is not None:
            step, nth = trouble.crash
            driver.crash_at(step, nth=nth)
        if trouble.wall_ms:
            driver.clock.set_wall_ms(driver.clock.wall_ms() + trouble.wall_ms)
        driver.advance(trouble.pause_s)
        if trouble.stop and not driver.crashed:
            driver.stop()
        driver.restart(empty_disk=trouble.empty_disk)

    def end(self) -> None:
        """All inputs are idle, and the clock passes the last window."""
        self.driver.clock.set_wall_ms(START_MS + 36_000_000)
        self.driver.advance(IDLE_S + 300.0)

    def check(self) -> None:
        late = Counter(self.app.late_values(self.driver))
        closed = Counter(map(_place, self.driver.outputs(self.app.closed)))
        assert set(closed.values()) <= {1}
        assert set(late.values()) <= {1}
        expected: dict[tuple[str, int], Numbers] = defaultdict(tuple)
        for number, (key, at_ms) in self.sent.items():
            if number not in late:
                expected[key, at_ms - at_ms % SIZE_MS] += (number,)
        found = {_place(event): event.value for event in self.driver.outputs(self.app.closed)}
        assert found == expected
        assert self.driver.windows(self.app.window) == {}


def _place(event: Event[str, Numbers]) -> tuple[str, int]:
    """Key and start of a closed window."""
    return event.key, int(dict(event.headers)["start"] or b"")


@settings(max_examples=60)
@given(
    history=histories,
    tasks=st.sampled_from([1, 2, PARTITIONS]),
    batch=st.booleans(),
    deferred=st.booleans(),
    seed=st.integers(0, 1_000),
    limit=st.sampled_from([1, 3, 1_000]),
)
def test_each_event_is_in_one_closed_window_or_late_once(
    history: list[tuple[list[Sent], Trouble]],
    tasks: int,
    batch: bool,
    deferred: bool,
    seed: int,
    limit: int,
) -> None:
    """Whatever crashes, pauses, and however many tasks there are."""
    case = History(tasks, batch=batch, deferred=deferred, seed=seed, limit=limit)
    for sent, trouble in history:
        case.send(sent)
        case.suffer(trouble)
    case.end()
    case.check()
