"""`Deadline` and `Attempts`: how often a condition is checked or a step is repeated, and for how long."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

import pipeline
from pipeline.ports import Attempts, Deadline, growing
from pipeline.testing import ManualClock


@pytest.mark.parametrize(("timeout_s", "asked"), [(0.0, 1), (0.1, 2), (0.95, 11)])
def test_a_condition_is_asked_once_more_after_the_last_pause(timeout_s: float, asked: int) -> None:
    """What becomes true during the last pause must not be reported as a time-out."""
    clock, looks = ManualClock(), 0
    deadline = Deadline(clock, timeout_s, 0.1)
    while True:
        looks += 1
        if not deadline.pause():
            break
    assert looks == asked
    assert timeout_s <= clock.monotonic_s() < timeout_s + 0.1 + 1e-9


def test_the_time_counts_from_the_beginning() -> None:
    """A condition that takes long to ask leaves less time for others."""
    clock = ManualClock()
    deadline = Deadline(clock, 10.0, 0.1)
    clock.advance(10.0)
    assert deadline.has_passed()
    assert not deadline.pause()
    assert clock.monotonic_s() == 10.0


def test_another_time_out_may_apply_to_one_kind_of_failure() -> None:
    """An unreachable broker is waited for less long than an open transaction."""
    clock = ManualClock()
    deadline = Deadline(clock, 10.0, 0.1)
    clock.advance(5.0)
    assert not deadline.pause(5.0)
    assert deadline.pause()
    assert not deadline.pause(-1.0)


def test_pauses_may_be_random() -> None:
    """Workers that start together must not ask together."""
    clock, pauses = ManualClock(), iter([0.1, 0.3])
    deadline = Deadline(clock, 0.4, lambda: next(pauses))
    assert deadline.pause()
    assert clock.monotonic_s() == pytest.approx(0.1)
    assert deadline.pause()
    assert not deadline.pause()


def test_attempts_end_by_number_not_by_time() -> None:
    """A restore that takes ten minutes and is overtaken once must be repeated."""
    clock = ManualClock()
    attempts, made = Attempts(clock, 3, 0.1), 0
    while True:
        clock.advance(600.0)
        made += 1
        if not attempts.pause():
            break
    assert made == 3
    assert clock.monotonic_s() == pytest.approx(3 * 600.0 + 2 * 0.1)


def test_pauses_grow_up_to_a_limit() -> None:
    """A short disturbance delays little, and a long one is not queried many times a second."""
    clock = ManualClock()
    attempts, seen = Attempts(clock, 6, growing(0.5, 3.0)), [0.0]
    while attempts.pause():
        seen.append(clock.monotonic_s())
    assert [later - earlier for earlier, later in pairwise(seen)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def _calls(node: ast.AST) -> set[str]:
    """The last names of what is called."""
    return {
        ast.unparse(call.func).rpartition(".")[2] for call in ast.walk(node) if isinstance(call, ast.Call)
    }


def _reads_a_clock(condition: ast.expr) -> bool:
    compares = any(isinstance(node, ast.Compare) for node in ast.walk(condition))
    return compares and bool(_calls(condition) & {"monotonic", "monotonic_s"})


def _polls(loop: ast.While) -> bool:
    """Whether the loop sleeps, and ends by a comparison with a clock."""
    ends = [
        node
        for node in ast.walk(loop)
        if isinstance(node, ast.If)
        and _reads_a_clock(node.test)
        and any(isinstance(inner, ast.Raise | ast.Return | ast.Break) for inner in ast.walk(node))
    ]
    return "sleep" in _calls(loop) and (bool(ends) or _reads_a_clock(loop.test))


def test_no_other_loop_polls_with_a_deadline() -> None:
    """Each has its own mistake: a deadline that is checked before the condition, or a pause after the end."""
    package = Path(pipeline.__file__).parent
    polling = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.While) and _polls(node)
    ]
    assert polling == []
    example = ast.parse("while not f():\n    if time.monotonic() > end: raise X\n    time.sleep(1)").body[0]
    assert isinstance(example, ast.While)
    assert _polls(example)
