"""The time limit of a demonstration: it depends on progress, and its error says how far the demonstration got."""

from __future__ import annotations

import pytest

from pipeline.demo.processes import DemoError
from pipeline.demo.run import Progress
from pipeline.testing import ManualClock

_IDLE_S = 10.0


def _progress(clock: ManualClock, result_every_s: float, last: int = 1_000) -> Progress:
    """Of 1,000 results: one every `result_every_s` seconds, up to the result `last`."""
    return Progress(clock, lambda: min(last, int(clock.monotonic_s() / result_every_s)), 1_000, _IDLE_S)


def test_a_slow_demo_is_not_ended() -> None:
    """A loaded machine takes many times as long as a free one."""
    clock = ManualClock()
    _progress(clock, result_every_s=9.0).wait_for("all", lambda: clock.monotonic_s() > 50 * _IDLE_S)


def test_a_demo_without_progress_ends_and_says_how_far_it_got() -> None:
    """Otherwise it would run forever; and its user must see whether it was slow or stuck."""
    clock = ManualClock()
    with pytest.raises(
        DemoError, match=r"no progress for 10 s, while it waited for rest: .* 2 of 1,000 results"
    ):
        _progress(clock, result_every_s=5.0, last=2).wait_for("rest", lambda: False)
    assert 2 * 5.0 + _IDLE_S <= clock.monotonic_s() < 2 * 5.0 + _IDLE_S + 1


def test_a_completed_step_is_progress() -> None:
    """Workers start before there are results, and that can take most of the time limit."""
    clock = ManualClock()
    progress = _progress(clock, result_every_s=15.0)
    clock.advance(_IDLE_S - 1)
    progress.step()
    progress.wait_for("the first result", lambda: progress.results == 1)


@pytest.mark.parametrize("lag", [0, 3])
def test_lost_results_are_compared_and_late_ones_are_an_error(lag: int) -> None:
    """A lost result must be reported as lost, and a slow machine must not be reported as a loss."""
    progress = _progress(ManualClock(), result_every_s=0.001, last=999)
    if lag:
        with pytest.raises(DemoError, match="999 of 1,000 results"):
            progress.wait_for_results(lambda: True, lambda: lag)
    else:
        progress.wait_for_results(lambda: True, lambda: lag)
    assert progress.results == 999


def test_results_without_workers_at_rest_are_not_the_end() -> None:
    """A task that is still restored has no owner that the comparison could ask for its table."""
    progress = _progress(ManualClock(), result_every_s=0.001)
    with pytest.raises(DemoError, match="1,000 of 1,000 results"):
        progress.wait_for_results(lambda: False, lambda: 0)
