"""Random histories of a window: each event is in one closed window or late once, and each window closes once.

The expected results are those of the rules, computed from the events alone. Which events are late depends on when the
worker has read them, so the late ones are taken from the topic of late events. All others must be in the windows that
their times say, in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Event
from tests.support.runtime.window_app import Numbers, WindowApp
from tests.support.runtime.window_histories import PARTITIONS, Sent, Trouble, WindowHistory, histories

pytestmark = pytest.mark.unverified  # a closed window is made from several records

SIZE_MS = 60_000


class History(WindowHistory):
    """What a history must lead to."""

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
    app = WindowApp(other=True, batch=batch)
    case = History(app, tasks, deferred=deferred, seed=seed, limit=limit)
    for sent, trouble in history:
        case.send(sent)
        case.suffer(trouble)
    case.end()
    case.check()
