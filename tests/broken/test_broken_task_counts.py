"""Broken on purpose: how many tasks a group has, and which format its journal gets."""

from __future__ import annotations

import pytest

import pipeline.core.recovery
import pipeline.runtime.restore.genesis
import pipeline.runtime.task_count
from tests.support.breaking import Broken, Copy, name_of

TESTS = "tests/runtime/test_partitions_of_a_task.py"

ROWS = [
    Broken(
        "a new group gets format 1",
        pipeline.runtime.task_count._of_new,
        "return declared or default_tasks(partitions)",
        "return declared or 0",
        f"{TESTS} new_group_writes_format_2",
    ),
    Broken(
        "a number of tasks that differs from the journal's is ignored",
        pipeline.runtime.task_count._refused,
        "    if declared is not None and declared != tasks:\n",
        "    if False:\n",
        f"{TESTS} another_number_of_tasks",
    ),
    Broken(
        "a start does not see that the inputs have grown",
        pipeline.runtime.task_count._grown,
        "        if facts is not None and facts.partitions < partitions:\n",
        "        if False:\n",
        f"{TESTS} grown_are_refused_at_the_start",
    ),
    Broken(
        "a journal with more partitions than the inputs is continued",
        pipeline.runtime.task_count._refused,
        "    if tasks > partitions:\n",
        "    if False:\n",
        f"{TESTS} fewer_partitions_than_tasks",
    ),
    Broken(
        "a worker starts a group in a journal that another one has created for other tasks",
        pipeline.runtime.restore.genesis._check_journal,
        "    if journal.partitions != partitions:\n",
        "    if False:\n",
        "tests/runtime/restore/test_genesis.py created_for_other_tasks",
    ),
    Broken(
        "a history of another number of tasks is continued",
        pipeline.core.recovery.check_identity,
        "    if task_count(before) != task_count(now):\n",
        "    if False:\n",
        "tests/core/test_identity.py another_number_of_tasks",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever a start decides would be worth nothing."""
    copied.assert_noticed(broken)
