"""Reports for tests that do not run a drill."""

from __future__ import annotations

import msgspec

from pipeline.drills.report import (
    VERSION,
    BlastRadius,
    Effect,
    Evidence,
    Fault,
    Finding,
    Identity,
    Recovery,
    RecoveryPoint,
    Report,
    Restored,
    SteadyState,
    TaskTimeline,
)

__all__ = ["BEGAN_MS", "broken_report", "held_report"]

BEGAN_MS = 1_790_000_000_000


def held_report(*, began_ms: int = BEGAN_MS, recovery_s: float = 10.6) -> Report:
    """A report of kill-worker that held. One of its texts contains markup."""
    return Report(
        version=VERSION,
        identity=Identity(
            id=f"kill-worker-{began_ms}",
            drill="kill-worker",
            drill_version=1,
            pipeline_version="0.2.0",
            app="orders",
            commit="",
            kafka="127.0.0.1:9092",
            cluster_id="cluster",
            host="host",
            operator="me",
            reason="<b>why</b>",
            began_ms=began_ms,
            ended_ms=began_ms + 30_000,
        ),
        hypothesis="Tasks commit again.",
        tolerance=["each input once"],
        abort_conditions=["lag > 10"],
        abort_fired="",
        preconditions=["all tasks are live"],
        steady_state=SteadyState(
            observed_s=5.0,
            workers=["a", "b"],
            tasks=4,
            tasks_live=4,
            commits_per_s=40.0,
            records_per_s=200.0,
            lag=3,
            longest_pause_s=0.2,
            open_dead_letters=0,
        ),
        blast_radius=BlastRadius(predicted=["main/0"], touched=["main/0", "main/2"], unexpected=["main/2"]),
        fault=Fault(
            actions=["SIGKILL"],
            target="worker a",
            injected_ms=began_ms + 5_000,
            evidence=[Evidence(at_ms=began_ms + 5_010, text="the process has ended")],
        ),
        timeline=[
            TaskTimeline(
                task="main/0",
                predicted=True,
                before="a",
                after="b",
                detect_s=9.0,
                fence_s=10.0,
                replay_s=10.4,
                acquired_s=10.4,
                first_commit_s=recovery_s,
                recovered_s=recovery_s,
                caught_up_s=recovery_s + 1.4,
                restored_from="a checkpoint",
                replayed_entries=1234,
            ),
            TaskTimeline(task="main/2", predicted=False, before="b", after="b"),
        ],
        recovery=Recovery(
            objective_s=60.0,
            predicted_s=10.5,
            measured_s=recovery_s,
            caught_up_s=recovery_s + 1.4,
            unaffected_pause_s=0.4,
            unaffected_limit_s=5.0,
        ),
        recovery_point=RecoveryPoint(
            entries=100, input_offsets=2_000, exactly_once=True, chain_intact=True, effects=[]
        ),
        restored=[Restored("start worker a", "started as process 7")],
        leftovers=[],
        verdict="held",
        deviations=[],
        differences=[],
        findings=[Finding(text="one task moved")],
        notes=[],
        logs=["/var/log/a.log"],
    )


def broken_report() -> Report:
    """A report that names a loss."""
    effect = Effect(
        kind="loss", task="main/1", topic="amounts", offset=41, journal_offset=99, text="an entry is missing"
    )
    report = held_report(began_ms=BEGAN_MS + 60_000, recovery_s=70.0)
    point = msgspec.structs.replace(
        report.recovery_point, effects=[effect], exactly_once=False, chain_intact=False
    )
    return msgspec.structs.replace(
        report, verdict="deviated", recovery_point=point, deviations=["loss: task main/1, amounts offset 41"]
    )
