"""Broken on purpose: what a drill refuses, notes, undoes and proves."""

from __future__ import annotations

import pytest

import pipeline.drills.drill
import pipeline.drills.intent
import pipeline.drills.judge
import pipeline.drills.observation
import pipeline.drills.runner
import pipeline.drills.workers
from tests.support.breaking import Broken, Copy, name_of

_JUDGE = "tests/drills/test_judge.py"
_INTENTS = "tests/drills/test_intents.py"
_REFUSALS = "tests/drills/test_refusals.py"

ROWS = [
    Broken(
        "a fork is not seen",
        pipeline.drills.judge.Judge._check_fork,
        "if last is None or parent.chain not in state.continued:",
        "if True:",
        f"{_JUDGE} a_fork_is_found",
    ),
    Broken(
        "the chain of an entry is not compared",
        pipeline.drills.judge.Judge._parent,
        "if parent.seq + 1 == seen.seq and chain_after(parent.chain, chunks) == seen.chain:",
        "if parent.seq + 1 == seen.seq or parent is state.last:",
        f"{_JUDGE} a_missing_entry",
    ),
    Broken(
        "inputs that are committed twice are not seen",
        pipeline.drills.judge.Judge._cover,
        "elif end < start or (start < covered and end > start):",
        "elif False:",
        f"{_JUDGE} positions_that_fall",
    ),
    Broken(
        "a reset counts as duplicates",
        pipeline.drills.judge.Judge._cover,
        "if seen.kind is EntryKind.RESET:",
        "if False:",
        f"{_JUDGE} a_reset_may",
    ),
    Broken(
        "a commit of a former owner is accepted",
        pipeline.drills.judge.Judge._entry,
        "elif seen.kind in _OWNED and state.owner and seen.owner not in {state.owner, *state.strangers}:",
        "elif False:",
        f"{_JUDGE} former_owner",
    ),
    Broken(
        "the time without input counts as a pause",
        pipeline.drills.observation.Observer.pause_s,
        "if start < at < end",
        "if False",
        "tests/drills/test_observation.py without_input",
    ),
    Broken(
        "a step is not written before the change",
        pipeline.drills.intent.IntentFile.add,
        "self._write(msgspec.structs.replace(self._intent, steps=(*self._intent.steps, step)))",
        "self._intent = msgspec.structs.replace(self._intent, steps=(*self._intent.steps, step))",
        f"{_INTENTS} before_the_change",
    ),
    Broken(
        "steps are undone in the order of the changes",
        pipeline.drills.intent.undo,
        "for step in reversed(intent.steps):",
        "for step in intent.steps:",
        f"{_INTENTS} in_reverse",
    ),
    Broken(
        "a second process of a worker is started",
        pipeline.drills.intent.StartWorker.undo,
        "if holder is not None:",
        "if False:",
        f"{_INTENTS} only_if_nothing_holds",
    ),
    Broken(
        "a signal reaches a process that reuses the id",
        pipeline.drills.workers.Process.send,
        "if not self.alive:",
        "if False:",
        f"{_INTENTS} reused_process_id",
    ),
    Broken(
        "an app need not be allowed",
        pipeline.drills.runner.check_allowed,
        "if app not in settings.drills.allow:",
        "if False:",
        f"{_REFUSALS} never_drilled",
    ),
    Broken(
        "a second drill may begin",
        pipeline.drills.runner.Runner._scene,
        "if open_intent is not None:",
        "if False:",
        f"{_REFUSALS} second_drill",
    ),
    Broken(
        "more tasks than allowed may be affected",
        pipeline.drills.runner.Runner._planned,
        "if limit is not None and len(plan.tasks) > limit:",
        "if False:",
        f"{_REFUSALS} more_tasks",
    ),
    Broken(
        "a fault may hit an app that is not steady",
        pipeline.drills.runner.Runner._check_steady,
        "if waiting:",
        "if False:",
        f"{_REFUSALS} not_steady",
    ),
]


@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_drill_is_noticed(copied: Copy, broken: Broken) -> None:
    """Each row must fail its test."""
    copied.assert_noticed(broken)
