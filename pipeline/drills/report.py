"""The report of a drill: `Report` and its parts, and their JSON schema.

Times that end with `_ms` are milliseconds since 1970 UTC. Durations end with `_s`. None: unknown or not applicable.
Fields are only added; a change of their meaning raises `VERSION`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "VERSION",
    "BlastRadius",
    "Difference",
    "Effect",
    "Evidence",
    "Fault",
    "Finding",
    "Identity",
    "Recovery",
    "RecoveryPoint",
    "Report",
    "Restored",
    "SteadyState",
    "TaskTimeline",
    "Verdict",
    "schema",
]

VERSION = 1

Verdict = Literal["held", "deviated", "aborted", "not restored"]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which drill was run, where and by whom. `commit`: of the working directory; empty outside of a repository."""

    id: str
    drill: str
    drill_version: int
    pipeline_version: str
    app: str
    commit: str
    kafka: str
    cluster_id: str
    host: str
    operator: str
    reason: str
    began_ms: int
    ended_ms: int
    seed: int | None = None


class SteadyState(msgspec.Struct, frozen=True, kw_only=True):
    """The app in the seconds before the fault. `longest_pause_s`: between two commits of a task."""

    observed_s: float
    workers: list[str]
    tasks: int
    tasks_live: int
    commits_per_s: float
    records_per_s: float
    lag: int
    longest_pause_s: float
    open_dead_letters: int


class BlastRadius(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that should be affected, that were, and those of the latter that should not have been."""

    predicted: list[str]
    touched: list[str]
    unexpected: list[str]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that shows that the fault took effect."""

    at_ms: int
    text: str


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. `injected_ms`: 0 if the drill ended before."""

    actions: list[str]
    target: str
    injected_ms: int
    evidence: list[Evidence]


class TaskTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds after the fault at which a touched task reached each stage.

    `before`: the owner before the fault. `after`: the worker that first acquired the task after it, whose stages these
    are. `last_owner`: the owner at the end of the drill; empty in reports of older releases.

    `detect`: another process claimed the task. `fence`: the restore fenced the previous owner. `copy`: a checkpoint was
    copied, if one was. `replay`: the journal was replayed. `first_commit`: inputs are committed again. `caught_up`: the
    task has recovered and its lag is as before. `recovered`: the first commit. If there was no input: when the task was
    acquired, or, if it kept its owner, when it was seen live without lag.
    """

    task: str
    predicted: bool
    before: str
    after: str
    detect_s: float | None = None
    fence_s: float | None = None
    copy_s: float | None = None
    replay_s: float | None = None
    acquired_s: float | None = None
    first_commit_s: float | None = None
    caught_up_s: float | None = None
    recovered_s: float | None = None
    restored_from: str = ""
    replayed_entries: int | None = None
    last_owner: str = ""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Recovery time: the objective, the prediction, and what was measured until the last affected task had recovered.

    `fault_s`: how long the fault itself kept all tasks from committing. The objective does not include it.
    """

    objective_s: float
    predicted_s: float
    measured_s: float | None
    caught_up_s: float | None
    unaffected_pause_s: float
    unaffected_limit_s: float
    fault_s: float = 0.0


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A break of the guarantees, with the first input offset concerned, and the entry's offset in the journal.

    `output`: an output that differs from that of a replay; `topic` and `offset` are its own, and `task` is empty.
    `journal_offset`: -1 if the effect is not of one entry.
    """

    kind: Literal["loss", "duplicate", "fork", "damage", "state", "output"]
    task: str
    topic: str
    offset: int | None
    journal_offset: int
    text: str


class RecoveryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the raw journals prove, from before the fault to the end of the drill."""

    entries: int
    input_offsets: int
    exactly_once: bool
    chain_intact: bool
    effects: list[Effect]
    states_compared: int = 0
    states_equal: int = 0
    outputs_compared: int = 0


class Restored(msgspec.Struct, frozen=True):
    """One change that was undone."""

    what: str
    result: str
    failed: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something to act on. `owner` and `due` are for the people who read the report."""

    text: str
    hint: str = ""
    owner: str = ""
    due: str = ""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A value that differs from the last run of the same drill."""

    name: str
    before: str
    now: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a drill."""

    version: int
    identity: Identity
    hypothesis: str
    tolerance: list[str]
    abort_conditions: list[str]
    abort_fired: str
    preconditions: list[str]
    steady_state: SteadyState
    blast_radius: BlastRadius
    fault: Fault
    timeline: list[TaskTimeline]
    recovery: Recovery
    recovery_point: RecoveryPoint
    restored: list[Restored]
    leftovers: list[str]
    verdict: Verdict
    deviations: list[str]
    differences: list[Difference]
    findings: list[Finding]
    notes: list[str]
    logs: list[str]

    @property
    def measures_recovery(self) -> bool:
        """Whether the drill affects tasks, so that their recovery was predicted or measured."""
        return bool(self.blast_radius.predicted) or self.recovery.measured_s is not None


def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    return msgspec.json.schema(Report)
