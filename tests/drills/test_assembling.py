"""What a report makes of the observations: who took a task over, when it had recovered, and how much was proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.drills.assembling import Outcome, assemble_report
from pipeline.drills.drill import Plan, Run
from pipeline.drills.intent import IntentFile
from pipeline.drills.judge import SeenEntry
from pipeline.drills.observation import Sample
from pipeline.drills.report import Report
from pipeline.drills.timeline import LogMarks, timeline_of, touched_tasks
from pipeline.drills.worker_drills import KillWorker
from pipeline.runtime.status import TaskPhase
from tests.support.drills.scenes import APP, observer_of, scene_of, settings_of
from tests.support.runtime.fleet import Fleet

TASK = TaskId(APP, "main", 0)
FAULT_MS = 100_000
Seen = tuple[int, str, TaskPhase, int]  # seconds after the fault, owner, phase, lag


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A drill on one task of worker `a`, whose fault was just injected."""
    fleet = Fleet(partitions=1)
    fleet.start("a")
    fleet.settle()
    scene = scene_of(fleet, settings_of(tmp_path), local=("a",))
    observer = observer_of(fleet)
    intent = IntentFile(tmp_path, APP)
    return Run(scene, observer, intent, lambda _: None, (), [TASK], injected_ms=FAULT_MS)


def _observe(run: Run, entries: list[tuple[EntryKind, str, float]], seen: list[Seen]) -> None:
    """What the driller has read: entries with their owner and time, and states of the task."""
    history = run.observer._histories[TASK]
    history.entries[:] = [
        SeenEntry(kind, 2 + n, owner, {}, FAULT_MS + round(1000 * at_s), n, b"")
        for n, (kind, owner, at_s) in enumerate(entries)
    ]
    first = run.scene.sample
    status = first.of(TASK)
    assert status is not None
    run.observer.samples[:] = [
        Sample(
            FAULT_MS + 1000 * at_s,
            replace(first.status, tasks=[replace(status, worker=owner, phase=phase, lag=lag)]),
            {},
        )
        for at_s, owner, phase, lag in seen
    ]
    history.lags[:] = [(FAULT_MS + 1000 * at_s, lag) for at_s, _, _, lag in seen]


def test_the_worker_that_took_over_is_named_and_not_the_last_owner(run: Run) -> None:
    """The stages are those of the takeover; the drill has restarted the killed worker since."""
    entries = [
        (EntryKind.ACQUIRE, "b", 11.0),
        (EntryKind.COMMIT, "b", 11.4),
        (EntryKind.ACQUIRE, "a", 15.0),
    ]
    _observe(run, entries, [(12, "b", TaskPhase.LIVE, 0), (16, "a", TaskPhase.LIVE, 0)])
    lines = [
        {"event": "task_live", "app": APP, "group": "main", "task": 0, "worker": worker, "at_ms": at_ms}
        | {"restore_s": 0.5, "restored_from": source}
        for worker, at_ms, source in (
            ("a", FAULT_MS + 9_000, "nothing"),
            ("b", FAULT_MS + 11_100, "a checkpoint"),
        )
    ]
    found = timeline_of(run, TASK, lines)
    assert (found.before, found.after, found.last_owner) == ("a", "b", "a")
    # The worker logs that the task is live after it has committed the acquire entry, which follows the replay.
    assert (found.fence_s, found.replay_s, found.acquired_s, found.first_commit_s) == (10.6, 11.0, 11.0, 11.4)
    assert found.restored_from == "a checkpoint"


def test_a_task_without_input_has_recovered_when_it_was_acquired(run: Run) -> None:
    """The driller reads the status up to seconds later, and would report a recovery that was slower."""
    seen = [(12, "b", TaskPhase.RESTORING, 0), (14, "b", TaskPhase.LIVE, 0)]
    _observe(run, [(EntryKind.ACQUIRE, "b", 11.0), (EntryKind.COMMIT, "b", 40.0)], seen)
    found = timeline_of(run, TASK, [])
    assert (found.acquired_s, found.recovered_s, found.caught_up_s) == (11.0, 11.0, 11.0)


def test_a_task_with_input_has_recovered_at_its_first_commit(run: Run) -> None:
    """A task that is live and does not commit has not recovered, whatever its lag."""
    seen = [(12, "b", TaskPhase.LIVE, 9), (14, "b", TaskPhase.LIVE, 0)]
    _observe(run, [(EntryKind.ACQUIRE, "b", 11.0), (EntryKind.COMMIT, "b", 13.0)], seen)
    found = timeline_of(run, TASK, [])
    assert (found.recovered_s, found.caught_up_s) == (13.0, 13.0)


def test_a_task_that_kept_its_owner_has_recovered_when_seen_live(run: Run) -> None:
    """Nothing in its journal says when, if it had no input."""
    _observe(run, [], [(3, "a", TaskPhase.RESTORING, 0), (5, "a", TaskPhase.LIVE, 0)])
    found = timeline_of(run, TASK, [])
    assert (found.after, found.recovered_s, found.caught_up_s) == ("a", 5.0, 5.0)


def test_a_task_that_moves_when_the_workers_are_restored_is_not_touched(run: Run) -> None:
    """The worker that the drill starts again gets tasks, which the fault has not affected."""
    _observe(
        run, [(EntryKind.COMMIT, "b", 1.0), (EntryKind.ACQUIRE, "a", 11.0)], [(12, "a", TaskPhase.LIVE, 0)]
    )
    run.predicted = []
    assert touched_tasks(run, FAULT_MS + 10_000, pause_s=60) == []
    assert touched_tasks(run, FAULT_MS + 11_000, pause_s=60) == [TASK]
    run.predicted = [TASK]
    assert touched_tasks(run, FAULT_MS + 10_000, pause_s=60) == [TASK]


def _report(run: Run) -> Report:
    plan = Plan("worker a", [], "", [TASK], 10.5)
    steady = run.observer.steady_state(run.injected_ms)
    return assemble_report(
        Outcome(
            run, KillWorker(), plan, steady, [], [], "held", FAULT_MS, FAULT_MS + 20_000, "id", LogMarks()
        )
    )


def test_a_drill_without_input_says_how_little_it_proves(run: Run) -> None:
    """No record can be lost or processed twice where there is none, and the drill holds."""
    _observe(run, [(EntryKind.ACQUIRE, "b", 11.0)], [(12, "b", TaskPhase.LIVE, 0)])
    report = _report(run)
    assert report.verdict == "held"
    assert report.recovery.measured_s == 11.0
    assert any("committed no input during the drill" in note for note in report.notes)
    run.compared = 1  # a drill that compares states proves something without new input, too
    assert not any("committed no input" in note for note in _report(run).notes)


def test_a_note_names_the_tasks_that_moved_again(run: Run) -> None:
    """Otherwise a reader of the report takes the worker that took over for the owner."""
    _observe(
        run, [(EntryKind.ACQUIRE, "b", 11.0)], [(12, "b", TaskPhase.LIVE, 0), (16, "a", TaskPhase.LIVE, 0)]
    )
    report = _report(run)
    assert any(note.endswith("before the end of the drill: main/0 to a") for note in report.notes)
