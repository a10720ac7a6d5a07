"""Broken on purpose: who runs which task, and how it is given up."""

from __future__ import annotations

import pytest

import pipeline.core.membership
import pipeline.rocksdb.snapshots
import pipeline.runtime.assignment.cleanup
import pipeline.runtime.assignment.roster
import pipeline.runtime.task.task
import pipeline.runtime.task_lifecycle
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "a worker ends before it has claimed the tasks that no worker runs",
        pipeline.runtime.task_lifecycle.TaskLifecycle.finished,
        "            or not self.ownership.settled\n",
        "",
        "tests/runtime/test_worker.py claimed_its_other",
    ),
    Broken(
        "a handler that hangs at once leaves its task without a note",
        pipeline.runtime.task_lifecycle.TaskLifecycle.turn,
        "        return self._end_deferred_starts() | self._start_restored() | self._carry_out_assignment()\n",
        "        return self._end_deferred_starts() | self._carry_out_assignment() | self._start_restored()\n",
        "tests/runtime/test_watchdog.py first_record_hangs",
    ),
    Broken(
        "states are removed on the word of a note",
        pipeline.runtime.assignment.cleanup.StateCleanup._put_away,
        "            if not agrees or task in here",
        "            if task in here",
        "tests/runtime/assignment/test_cleanup.py note_alone",
    ),
    Broken(
        "a state that is restored again meanwhile is put away",
        pipeline.runtime.assignment.cleanup.StateCleanup._put_away,
        "            if not agrees or task in here or not self._is_anothers(task, roster):",
        "            if not agrees:",
        "tests/runtime/assignment/test_cleanup.py came_back",
    ),
    Broken(
        "states are removed where they stand",
        pipeline.rocksdb.snapshots.put_away,
        "        state.rename(target)\n",
        "        target = state\n",
        "tests/contracts/test_store_contract.py killed_while",
    ),
    Broken(
        "the ring does not look at who owns what",
        pipeline.core.membership.Roster.assignment,
        "{worker: member.weight for worker, member in members.items()}, owners)",
        "{worker: member.weight for worker, member in members.items()})",
        "tests/runtime/assignment/test_fleet.py others_never_stop",
    ),
    Broken(
        "workers that start take free tasks before they know each other",
        pipeline.core.membership.decide,
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or not roster.is_running(task):",
        "tests/runtime/assignment/test_fleet.py without_a_fight",
    ),
    Broken(
        "a worker claims what another one runs",
        pipeline.core.membership.decide,
        "if mine or (settled and not roster.is_running(task)):",
        "if mine or settled:",
        "tests/runtime/assignment/test_fleet.py never_stop",
    ),
    Broken(
        "a late note turns owners back",
        pipeline.runtime.assignment.roster.RosterWatch._merge,
        "if known is None or about.order >= known.order:",
        "if True:",
        "tests/runtime/assignment/test_roster.py later_entry",
    ),
    Broken(
        "the ghost of a restarted worker counts",
        pipeline.core.membership.Roster._workers,
        "for member in sorted(self.members, key=lambda member: member.age):",
        "for member in sorted(self.members, key=lambda member: member.age, reverse=True):",
        "tests/runtime/assignment/test_fleet.py before_it_was_missed",
    ),
    Broken(
        "who has said that it leaves is waited for",
        pipeline.core.membership.Roster._workers,
        "            if member.process not in self.departed:\n                found[",
        "            if True:\n                found[",
        "tests/runtime/assignment/test_fleet.py is_stopped",
    ),
    Broken(
        "two versions with different tasks share one ring",
        pipeline.core.membership.Roster.ring_members,
        "if member.parameters == parameters}",
        "if parameters}",
        "tests/runtime/assignment/test_fleet.py of_another_version",
    ),
    Broken(
        "a fenced worker takes the task back without asking who has it",
        pipeline.runtime.task_lifecycle.TaskLifecycle._handle_found_owners,
        "            self._reactions.settled(task)\n"
        '            self._environment.log.warning(\n                "task_taken_over"',
        "            self._begin_restore(self._run_of(task), task)\n"
        "            continue\n"
        '            self._environment.log.warning(\n                "task_taken_over"',
        "tests/runtime/assignment/test_fleet.py wakes_up",
    ),
    Broken(
        "what waits in a task that is given up is processed and lost",
        pipeline.runtime.task.task.Task.offer,
        "        if self.poison is not None or self._leaving:\n            return\n",
        "        if self.poison is not None:\n            return\n",
        "tests/runtime/task/test_task.py given_up",
    ),
    Broken(
        "a task is released before what is open is committed",
        pipeline.runtime.task.task.Task.advance,
        "        seal = seal or self._leaving  # so that nothing is open when the release entry is committed\n",
        "",
        "tests/runtime/task/test_task.py given_up",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass whatever the protocol does would be worth nothing."""
    copied.assert_noticed(broken)
