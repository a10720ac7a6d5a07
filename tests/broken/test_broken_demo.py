"""Broken on purpose: what the demonstration compares, and what it leaves behind."""

from __future__ import annotations

import pytest

import pipeline.demo.comparison
import pipeline.demo.processes
import pipeline.demo.run
from tests.support.breaking import Broken, Copy, name_of

_COMPARISON = "tests/demo/test_results.py"
_COMMAND = "tests/demo/test_demo_command.py"
_PROCESSES = "tests/demo/test_processes.py"

ROWS = [
    Broken(
        "values in the wrong order count as exact",
        pipeline.demo.comparison._compared,
        "if wanted == actual:",
        "if Counter(map(_text, wanted)) == Counter(map(_text, actual)):",
        _COMPARISON,
    ),
    Broken(
        "accounts that are not expected are not compared",
        pipeline.demo.comparison._compared,
        "expected.keys() | by_key.keys()",
        "expected.keys()",
        _COMPARISON,
    ),
    Broken(
        "duplicates do not count",
        pipeline.demo.comparison._compared,
        "duplicated += (extra - missing).total()",
        "pass",
        _COMPARISON,
    ),
    Broken(
        "a signal interrupts the end of Kafka",
        pipeline.demo.run.run_demo,
        "with signals_postponed():",
        "if True:",
        f"{_COMMAND} during_the_cleanup",
    ),
    Broken(
        "a signal interrupts the removal of the temporary directory",
        pipeline.demo.run._workspace,
        "with signals_postponed():",
        "if True:",
        f"{_COMMAND} during_the_cleanup",
    ),
    Broken(
        "a signal interrupts the start of a process",
        pipeline.demo.processes.Processes._start,
        "with signals_postponed():",
        "if True:",
        f"{_PROCESSES} during_the_start",
    ),
    Broken(
        "a postponed signal is forgotten",
        pipeline.demo.processes.signals_postponed,
        "signal.raise_signal(number)",
        "pass",
        f"{_PROCESSES} after_the_block",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """A test that passes with the rule broken does not test it."""
    copied.assert_noticed(broken)
