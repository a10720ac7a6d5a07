"""The timers benchmark, small, and what it must notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import timers_checks
from benchmarks.__main__ import main
from benchmarks.timers_checks import Drain, Fired, Firings, Schedule, judge
from benchmarks.timers_worker import LATE, NEXT

NOW_MS = 1_800_000_000_000
Output = tuple[str, int]
Change = Callable[[list[Output]], list[Output]]


def seen(schedule: Schedule, outputs: list[Output]) -> Firings:
    """What the benchmark finds in these outputs."""
    firings = Firings(schedule)
    for key, due_ms in outputs:
        firings.add(key, due_ms, 1.0)
    return firings


def in_order(schedule: Schedule) -> list[Output]:
    """The outputs of a drain without errors."""
    due = sorted((schedule.due_ms(number), schedule.key(number)) for number in range(schedule.timers))
    fired = [(key, due_ms) for due_ms, key in due]
    return [(LATE, schedule.late_ms), *fired, (NEXT, schedule.late_ms)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda outputs: outputs, None),
        (lambda outputs: [outputs[0], *outputs[2:]], "timers that did not fire: 1"),
        (lambda outputs: [*outputs[:2], *outputs[1:]], "timers that fired more than once: 1"),
        (lambda outputs: [outputs[0], *outputs[2:0:-1], *outputs[3:]], "timers that fired out of order: 1"),
        (lambda outputs: [*outputs[1::-1], *outputs[2:]], "timers that fired before the late record: 1"),
        (lambda outputs: [*outputs[:-2], *outputs[:-3:-1]], "outputs that follow that of the next record: 1"),
        (lambda outputs: outputs[:-1], "the records with outputs are late, not late, next"),
        (
            lambda outputs: [outputs[0], (outputs[1][0], outputs[1][1] - 1), *outputs[2:]],
            "timers that fired with a wrong due time: 1",
        ),
    ],
)
def test_the_benchmark_notices_timers_that_fire_wrongly(change: Change, problem: str | None) -> None:
    """A check that accepts everything proves nothing."""
    schedule = Schedule(100, NOW_MS)
    problems = seen(schedule, change(in_order(schedule))).problems()
    assert problem in problems if problem else problems == []


@pytest.mark.parametrize(
    ("pause_s", "removed", "problem"),
    [
        (timers_checks.BOUND_S, 100, None),
        (timers_checks.BOUND_S + 0.1, 100, "the other partition paused for 1.10 s, more than 1.0 s"),
        (0.0, 99, "the journal has 99 timers that were removed, not 100"),
    ],
)
def test_the_benchmark_judges_pauses_and_the_journal(
    pause_s: float, removed: int, problem: str | None
) -> None:
    """The outputs may be right although the other partition was stopped, or a timer is still stored."""
    schedule = Schedule(100, NOW_MS)
    found = judge(
        seen(schedule, in_order(schedule)), Fired(1.0, 1.0, 0.1, pause_s), Drain(1, removed, removed, 1)
    )
    assert found == ([problem] if problem else [])


@pytest.mark.kills
def test_the_timers_benchmark_runs_and_says_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published measurement must be repeatable. Its bound is for an idle machine."""
    monkeypatch.setattr(timers_checks, "BOUND_S", 60.0)
    assert main(["timers", "--timers", "3000", "--timeout", "120"]) == 0
    assert "3,000 timers fired exactly once, in order and before the next record" in capsys.readouterr().out


@pytest.mark.kills
def test_a_round_that_takes_too_long_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A hanging measurement must say how far it came."""
    assert main(["timers", "--timers", "3000", "--timeout", "0"]) == 1
    assert "FAILED in round 1: not finished after 0 s: the worker starts" in capsys.readouterr().out
