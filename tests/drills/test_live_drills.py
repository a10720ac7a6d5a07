"""Drills on live workers and a real Kafka: each holds, its report has the evidence, and outputs are exact."""

from __future__ import annotations

import pytest

from pipeline.drills.report import Report
from pipeline.drills.workers import holder_of
from tests.support.drills.live import PARTITIONS, LiveApp

pytestmark = [pytest.mark.kafka, pytest.mark.kills, pytest.mark.timeout(400)]


def _held(live: LiveApp, *arguments: str) -> Report:
    live.run("run", *arguments, "--yes", "--reason", "a test")
    report = live.report()
    assert report.verdict == "held", report.deviations
    assert report.fault.evidence
    assert report.recovery_point.exactly_once
    assert report.recovery_point.chain_intact
    assert report.recovery_point.input_offsets > 0
    assert report.steady_state.records_per_s > 0
    assert not report.leftovers
    assert live.intent() is None
    return report


def test_kill_worker_holds_and_its_timeline_has_every_stage(live: LiveApp) -> None:
    """Prediction and measurement side by side are what an operator runs a drill for."""
    report = _held(live, "kill-worker", "--worker", "a")
    assert len(report.blast_radius.predicted) == PARTITIONS // 2
    assert set(report.blast_radius.predicted) <= set(report.blast_radius.touched)
    for each in report.timeline:
        if not each.predicted:
            continue
        stages = [each.fence_s, each.acquired_s, each.first_commit_s, each.caught_up_s]
        assert None not in stages, each
        assert stages[:3] == sorted(stage for stage in stages[:3] if stage is not None), each
        assert each.before == "a"
    assert report.recovery.measured_s is not None
    assert report.recovery.measured_s == max(
        each.recovered_s or 0 for each in report.timeline if each.predicted
    )
    # Peers see the end of the process within a second, so the rest is the start of the tasks.
    assert 0 < report.recovery.measured_s < 40
    assert 0 < report.recovery.predicted_s < 40
    live.finish()


def test_a_supervised_worker_is_started_by_its_supervisor(live: LiveApp) -> None:
    """A second process of the driller would displace the one that the supervisor starts."""
    live.fleet.start("s", supervised=True)
    live.fleet.wait_for_rest()
    report = _held(live, "kill-worker", "--worker", "s-1")
    assert "a supervisor restarts worker s-1" in report.preconditions
    assert not report.restored
    assert report.fault.actions[1:] == []  # the driller has only killed it
    place = live.directory / "disks" / "s" / "process.1" / live.name
    live.wait_for(lambda: holder_of(place) is not None)
    live.finish()


def test_worker_drills_hold_one_after_the_other(live: LiveApp) -> None:
    """A drill must leave the app as it was, so that the next one can begin."""
    lost = _held(live, "lose-disk", "--worker", "b")
    assert all(each.restored_from for each in lost.timeline if each.predicted)
    copied = [each for each in lost.timeline if each.restored_from == "a checkpoint"]
    assert copied
    assert all(each.copy_s is not None and each.copy_s <= (each.replay_s or 0) for each in copied)
    assert not list(live.place("b").parent.glob("*.drill-*"))
    zombie = _held(live, "freeze-worker", "--worker", "a", "--seconds", "12")
    assert any("is in state T" in each.text for each in zombie.fault.evidence)
    replayed = _held(live, "replay-from-checkpoint")
    assert replayed.recovery_point.states_compared == replayed.recovery_point.states_equal > 0
    live.finish()


def test_fleet_drills_hold_one_after_the_other(live: LiveApp) -> None:
    """Deployments and scaling are rehearsed with the same report as failures."""
    _held(live, "rolling-restart")
    joined = _held(live, "scale-out", "--worker", "a")
    assert any("a-drill runs" in each.text for each in joined.fault.evidence)
    assert not list(live.drills.glob("state-*"))
    _held(live, "scale-in", "--worker", "b")
    live.finish()


def test_store_drills_hold_one_after_the_other(live: LiveApp) -> None:
    """A store that is unavailable or damaged must cost no commit, and a restore must not use what is damaged."""
    live.wait_for(lambda: _checkpoints(live) >= 3)
    _held(live, "store-down", "--seconds", "4")
    assert live.store.is_dir()
    damaged = _held(live, "damage-checkpoint", "--worker", "a")
    assert any("fails its checks" in each.text for each in damaged.fault.evidence)
    refused = [event for process in live.fleet.processes for event in process.events("checkpoint_refused")]
    assert refused
    live.finish()


def _checkpoints(live: LiveApp) -> int:
    """The smallest number of manifests of a task in the store."""
    tasks = [path for path in live.store.glob(f"*/{live.name}/main/*") if path.is_dir()]
    return min((len(list(task.glob("manifests/*"))) for task in tasks), default=0)


def test_a_poison_record_becomes_one_dead_letter(live: LiveApp) -> None:
    """A record that cannot be decoded must cost its task no pause."""
    report = _held(live, "poison-record", "--app", "tests.support.kafka.sums:app")
    assert any("1 dead letter was written" in each.text for each in report.fault.evidence)
    (note,) = [each for each in report.notes if "pipeline deadletters discard" in each]
    command = note.partition("stays open: pipeline ")[2].split()
    assert "1 record" in live.run_command(*command)
    refused = live.run("run", "poison-record", "--yes", code=1)
    assert "refused (code-needed)" in refused
    live.finish()
