"""Broken on purpose: what `pipeline status` shows first, what it groups, and when a worker is safe to stop."""

from __future__ import annotations

import pytest

import pipeline.cli.status_screen
import pipeline.runtime.status.groups
import pipeline.runtime.status.problems
import pipeline.runtime.status.reading
import pipeline.runtime.status.stopping
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "the throughput is that of the last two commits",
        pipeline.runtime.status.reading._rate,
        "if before.wall_ms > since_ms:",
        "if False:",
        "tests/runtime/status/test_groups.py does_not_vary",
    ),
    Broken(
        "a task that is restored does not delay a stop",
        pipeline.runtime.status.stopping,
        "TaskPhase.RESTORING, TaskPhase.MOVING, TaskPhase.UNOWNED, TaskPhase.NEW",
        "TaskPhase.MOVING, TaskPhase.NEW",
        "tests/runtime/status/test_stopping.py tasks_of_the_last_one",
    ),
    Broken(
        "a worker that stops as well is a successor",
        pipeline.runtime.status.stopping.reasons_to_wait,
        "if worker.worker not in leaving",
        "if True",
        "tests/runtime/status/test_stopping.py but_not_both",
    ),
    Broken(
        "a worker of another version is a successor",
        pipeline.runtime.status.stopping._that_share,
        "if ring in now else []",
        "or able",
        "tests/runtime/status/test_stopping.py another_version",
    ),
    Broken(
        "a worker that does not run the group is a successor",
        pipeline.runtime.status.stopping._that_share,
        "able = [worker for worker in others if group in worker.rings]",
        "able = [replace(worker, rings=dict.fromkeys([group], *now)) for worker in others]",
        "tests/runtime/status/test_stopping.py does_not_run_the_group",
    ),
    Broken(
        "a group that has not started does not matter",
        pipeline.runtime.status.stopping.reasons_to_wait,
        "if unable:",
        "if False:",
        "tests/runtime/status/test_stopping.py not_started",
    ),
    Broken(
        "different next steps are one cause",
        pipeline.runtime.status.groups.problem_causes,
        '_NUMBER.sub("#", problem.hint)',
        '""',
        "tests/runtime/status/test_groups.py differ_only_in_numbers",
    ),
    Broken(
        "dead letters at a high rate are not a problem",
        pipeline.runtime.status.problems.letter_problems,
        "if round(each.letters.recent) > per_minute",
        "if False",
        "tests/runtime/status/test_groups.py above_the_threshold",
    ),
    Broken(
        "a screen is taller than the terminal",
        pipeline.cli.status_screen.screen,
        "if len(lines) > height:",
        "if False:",
        "tests/cli/test_status.py never_taller",
    ),
    Broken(
        "groups take the lines of problems",
        pipeline.cli.status_screen.screen,
        "max(_FEWEST_PROBLEMS,",
        "max(1,",
        "tests/cli/test_status.py never_taller",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """An operator stops a worker, or does not look further, because of what the status says."""
    copied.assert_noticed(broken)
