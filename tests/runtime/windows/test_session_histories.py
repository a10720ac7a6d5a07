"""Random histories of sessions: closed sessions and late events are those of a fold over the same events and clocks.

The clock at which an event was handled depends on when the worker has read it, so the app says it in an output.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Sessions
from tests.support.runtime.session_fold import SessionFold
from tests.support.runtime.window_app import WindowApp, joined
from tests.support.runtime.window_histories import PARTITIONS, Sent, Trouble, WindowHistory, histories

pytestmark = pytest.mark.unverified  # a closed session is made from several records

GAP_S, GRACE_S = 25, 5  # so that some events are near two sessions


def _check(case: WindowHistory) -> None:
    folds: dict[str, SessionFold] = defaultdict(lambda: SessionFold(GAP_S * 1000, GRACE_S * 1000))
    assert case.app.seen is not None
    for event in case.driver.outputs(case.app.seen):
        number, clock_ms = event.value
        folds[event.key].add(number, case.sent[number][1], clock_ms)
    closed = [
        (event.key, int(dict(event.headers)["start"] or b""), event.timestamp_ms, event.value)
        for event in case.driver.outputs(case.app.closed)
    ]
    expected = [(key, *session) for key, fold in folds.items() for session in fold.sessions()]
    assert Counter(closed) == Counter(expected)
    late = Counter(case.app.late_values(case.driver))
    assert late == Counter(number for fold in folds.values() for number in fold.late)
    assert case.driver.windows(case.app.window) == {}


@settings(max_examples=60)
@given(
    history=histories,
    tasks=st.sampled_from([1, 2, PARTITIONS]),
    batch=st.booleans(),
    deferred=st.booleans(),
    seed=st.integers(0, 1_000),
    limit=st.sampled_from([1, 3, 1_000]),
)
def test_sessions_are_those_of_a_fold_over_the_same_events(
    history: list[tuple[list[Sent], Trouble]],
    tasks: int,
    batch: bool,
    deferred: bool,
    seed: int,
    limit: int,
) -> None:
    """Whatever crashes, pauses, and however many tasks there are."""
    app = WindowApp(Sessions(GAP_S, merge=joined), grace_s=GRACE_S, other=True, batch=batch, seen=True)
    case = WindowHistory(app, tasks, deferred=deferred, seed=seed, limit=limit)
    for sent, trouble in history:
        case.send(sent)
        case.suffer(trouble)
    case.end()
    _check(case)
