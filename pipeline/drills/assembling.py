"""Makes the report of a drill from what was observed: `assemble_report`."""

from __future__ import annotations

import getpass
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from pipeline.core.suggestions import counted
from pipeline.drills.drill import Drill, Plan, Run
from pipeline.drills.observation import short
from pipeline.drills.report import (
    VERSION,
    BlastRadius,
    Effect,
    Fault,
    Finding,
    Identity,
    Recovery,
    RecoveryPoint,
    Report,
    Restored,
    SteadyState,
    TaskTimeline,
    Verdict,
)
from pipeline.drills.timeline import LogMarks, timeline_of, touched_tasks

__all__ = ["Outcome", "assemble_report"]

_GIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A drill that has ended. `met`: the preconditions. `recovered_ms`: the end of its method."""

    run: Run
    drill: Drill
    plan: Plan
    steady: SteadyState
    met: Sequence[str]
    restored: Sequence[Restored]
    verdict: Verdict
    began_ms: int
    recovered_ms: int
    identity: str
    logs: LogMarks


def assemble_report(outcome: Outcome) -> Report:
    """The report, without the differences to the last run.

    1 the tasks that the fault touched, with their timelines
    2 how long the recovery took, and what the journals prove
    3 everything that deviates from the hypothesis, and so the verdict
    """
    run, settings = outcome.run, outcome.run.scene.settings.drills
    if not run.injected_ms:
        run.injected_ms = outcome.recovered_ms
    # 1
    slow_s = run.observer.slowest_look_s(run.injected_ms, outcome.recovered_ms)
    limit_s = max(settings.pause_s, 3 * outcome.steady.longest_pause_s) + slow_s
    touched = touched_tasks(run, outcome.recovered_ms, limit_s)
    lines = outcome.logs.lines(run.injected_ms, sorted(settings.directory.absolute().glob("worker-*.log")))
    timeline = [timeline_of(run, task, lines) for task in touched]
    others = [short(task) for task in touched if task not in run.predicted]
    # 2
    recovery = _recovery(outcome, timeline, limit_s)
    point = run.observer.judge.verdict()
    effects = [*point.effects, *run.effects]
    # 3
    deviations = [*run.deviations, *map(_told, effects), *_late(recovery)]
    verdict: Verdict = "deviated" if outcome.verdict == "held" and deviations else outcome.verdict
    return Report(
        version=VERSION,
        identity=_identity(outcome),
        hypothesis=outcome.drill.hypothesis,
        tolerance=_tolerance(settings.rto_s, recovery.unaffected_limit_s, slow_s),
        abort_conditions=[str(condition) for condition in run.conditions],
        abort_fired=run.fired,
        preconditions=list(outcome.met),
        steady_state=outcome.steady,
        blast_radius=BlastRadius(
            predicted=list(map(short, run.predicted)), touched=list(map(short, touched)), unexpected=others
        ),
        fault=_fault(run, outcome.plan),
        timeline=timeline,
        recovery=recovery,
        recovery_point=_point(point, effects, run),
        restored=list(outcome.restored),
        leftovers=[each.what for each in outcome.restored if each.failed],
        verdict=verdict,
        deviations=deviations,
        differences=[],
        findings=[*run.findings, *_findings(deviations, others, recovery)],
        notes=run.notes + _notes(run, timeline),
        logs=[str(log) for log in sorted(outcome.logs.sizes)],
    )


def _tolerance(rto_s: float, pause_s: float, slow_s: float) -> list[str]:
    slow = f", plus {slow_s:.1f} s for which the drill waited for Kafka" if slow_s >= 1 else ""
    bound = f"the larger of drills.pause_s and three times the longest pause before the fault{slow}"
    return [
        "every input offset is in exactly one committed entry, and the chain of each journal is intact",
        f"each affected task commits again within {rto_s:g} s (drills.rto_s)",
        f"no other task pauses for longer than {pause_s:.1f} s ({bound})",
    ]


def _fault(run: Run, plan: Plan) -> Fault:
    return Fault(actions=run.actions, target=plan.target, injected_ms=run.injected_ms, evidence=run.evidence)


def _recovery(outcome: Outcome, timeline: Sequence[TaskTimeline], limit_s: float) -> Recovery:
    run, predicted = outcome.run, [each for each in timeline if each.predicted]
    return Recovery(
        objective_s=run.scene.settings.drills.rto_s,
        predicted_s=round(outcome.plan.predicted_s, 1),
        measured_s=_last([each.recovered_s for each in predicted]),
        caught_up_s=_last([each.caught_up_s for each in predicted]),
        unaffected_pause_s=round(run.unaffected_pause_s(outcome.recovered_ms), 3),
        unaffected_limit_s=round(limit_s, 3),
        fault_s=round(max(0, run.healed_ms - run.injected_ms) / 1000, 1),
    )


def _point(point: RecoveryPoint, effects: list[Effect], run: Run) -> RecoveryPoint:
    return msgspec.structs.replace(
        point,
        effects=effects,
        states_compared=run.compared,
        states_equal=run.equal,
        outputs_compared=run.outputs_compared,
    )


def _identity(outcome: Outcome) -> Identity:
    scene = outcome.run.scene
    return Identity(
        id=outcome.identity,
        drill=outcome.drill.name,
        drill_version=outcome.drill.version,
        pipeline_version=version("exactly-once-pipeline"),
        app=scene.app,
        commit=_commit(),
        kafka=scene.settings.kafka.bootstrap_servers,
        cluster_id=scene.cluster.cluster_id(),
        host=socket.gethostname(),
        operator=getpass.getuser(),
        reason=scene.options.reason,
        began_ms=outcome.began_ms,
        ended_ms=scene.clock.wall_ms(),
    )


def _commit() -> str:
    """The commit of the working directory; empty outside of a repository."""
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_S,
            cwd=Path.cwd(),
        )
        return found.stdout.strip() if found.returncode == 0 else ""
    return ""


def _last(values: Sequence[float | None]) -> float | None:
    """The time of the last task; None if one is unknown, or there is none."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _told(effect: Effect) -> str:
    where = [
        f"task {effect.task}" if effect.task else "",
        f"{effect.topic} offset {effect.offset}" if effect.offset is not None else "",
        f"journal offset {effect.journal_offset}" if effect.journal_offset >= 0 else "",
    ]
    return f"{effect.kind}: {', '.join(filter(None, where))}: {effect.text}"


def _late(recovery: Recovery) -> list[str]:
    found = []
    if recovery.measured_s is not None and recovery.measured_s - recovery.fault_s > recovery.objective_s:
        after = f" after a fault of {recovery.fault_s:.1f} s" if recovery.fault_s else ""
        took_s = recovery.measured_s - recovery.fault_s
        found.append(f"recovery took {took_s:.1f} s{after}, and the objective is {recovery.objective_s:g} s")
    if recovery.unaffected_pause_s > recovery.unaffected_limit_s:
        found.append(
            f"a task that the fault should not affect did not commit for {recovery.unaffected_pause_s:.1f} s; "
            f"the limit is {recovery.unaffected_limit_s:g} s"
        )
    return found


def _findings(deviations: Sequence[str], others: Sequence[str], recovery: Recovery) -> list[Finding]:
    found = [Finding(text=text) for text in deviations]
    if others:
        found.append(
            Finding(
                text=f"{counted(len(others), 'task')} not named by the plan moved or paused: {', '.join(others[:5])}",
                hint="a rebalance moves tasks of other workers, too, if the shares are uneven",
            )
        )
    slow = recovery.measured_s is not None and recovery.predicted_s > 0
    if slow and recovery.measured_s is not None and recovery.measured_s > 1.5 * recovery.predicted_s + 1:
        found.append(
            Finding(
                text=f"recovery took {recovery.measured_s:.1f} s, and {recovery.predicted_s:.1f} s were predicted",
                hint="pipeline status shows the prediction of each task in the column restore",
            )
        )
    return found


def _notes(run: Run, timeline: Sequence[TaskTimeline]) -> list[str]:
    found = []
    if timeline and all(each.fence_s is None for each in timeline):
        found.append(
            "the logs of the workers are not files, so the stages fence, copy and replay are unknown"
        )
    returned = [each for each in timeline if each.last_owner not in {"", each.after}]
    if returned:
        named = ", ".join(f"{each.task} to {each.last_owner}" for each in returned[:5])
        more = " ..." if len(returned) > 5 else ""
        found.append(f"tasks that moved again before the end of the drill: {named}{more}")
    if not run.observer.judge.verdict().input_offsets and not run.compared:
        found.append(
            "the app committed no input during the drill, so no record could be lost or processed twice. Run the "
            "drill while the app has input"
        )
    found += [f"the drill could not read the status: {text}" for text in run.observer.problems]
    found += run.observer.gaps
    if run.observer.unreachable_ms:
        seconds = (run.observer.unreachable_ms[-1] - run.observer.unreachable_ms[0]) / 1000
        found.append(f"the drill could not reach Kafka for about {seconds:.1f} s")
    return found
