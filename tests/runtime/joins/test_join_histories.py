"""Random histories of a join: pairs and unmatched events are those of a fold over the same events and clocks.

The clock at which an event was handled depends on when the worker has read it, so the app says it in an output.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import WorkerSettings
from pipeline.core.event_time import IDLE_S
from tests.support.runtime.join_app import GRACE_S, WITHIN_S, JoinApp, JoinFold
from tests.support.runtime.window_app import START_MS
from tests.support.runtime.window_histories import PARTITIONS, Sent, Trouble, histories, suffer

pytestmark = pytest.mark.unverified  # an unmatched call has no record of an input


class History:
    """What happens to the app, and what it must lead to."""

    def __init__(self, tasks: int, *, deferred: bool, seed: int, limit: int) -> None:
        self.app = JoinApp(seen=True)
        limits = WorkerSettings(worker_id="test", max_poll_records=limit, max_records_per_commit=limit)
        self.driver = self.app.driver(
            partitions=PARTITIONS, tasks=tasks, deferred=deferred, seed=seed, settings=limits
        )
        self.times: list[int] = []  # of each event, by its number
        self.now_ms: dict[int, int] = defaultdict(lambda: START_MS)

    def send(self, sent: list[Sent]) -> None:
        for each in sent:
            self.now_ms[each.partition] += each.gap_ms
            at_ms = max(START_MS, self.now_ms[each.partition] + each.jitter_ms)
            topic = self.app.payments if each.other else self.app.orders
            key = f"{each.partition}{each.key}"  # the partition of a result is that of its key
            number = len(self.times)
            self.times.append(at_ms)
            self.driver.send(topic, key, number, timestamp_ms=at_ms, partition=each.partition)

    def end(self) -> None:
        """All inputs are idle, and no event may match any more."""
        self.driver.clock.set_wall_ms(START_MS + 36_000_000)
        self.driver.advance(IDLE_S + 300.0)

    def check(self) -> None:
        folds: dict[str, JoinFold] = defaultdict(lambda: JoinFold(WITHIN_S * 1000, GRACE_S * 1000))
        for event in self.driver.outputs(self.app.seen):
            side, number, clock_ms = event.value
            folds[event.key].add(side, number, self.times[number], clock_ms)
        pairs = Counter((event.key, *event.value) for event in self.driver.outputs(self.app.matched))
        assert pairs == Counter((key, *pair) for key, fold in folds.items() for pair in fold.pairs)
        alone = self.driver.outputs(self.app.unmatched)
        expected = Counter((key, *each) for key, fold in folds.items() for each in fold.alone())
        assert Counter((event.key, *event.value) for event in alone) == expected
        assert all(event.timestamp_ms == self.times[event.value[1]] for event in alone)
        assert self.driver.joins(self.app.join) == {}


@settings(max_examples=60)
@given(
    history=histories,
    tasks=st.sampled_from([1, 2, PARTITIONS]),
    deferred=st.booleans(),
    seed=st.integers(0, 1_000),
    limit=st.sampled_from([1, 3, 1_000]),
)
def test_each_event_has_the_pairs_of_a_fold_or_is_unmatched_once(
    history: list[tuple[list[Sent], Trouble]], tasks: int, deferred: bool, seed: int, limit: int
) -> None:
    """Whatever crashes, pauses, and however many tasks there are."""
    case = History(tasks, deferred=deferred, seed=seed, limit=limit)
    for sent, trouble in history:
        case.send(sent)
        suffer(case.driver, trouble)
    case.end()
    case.check()
