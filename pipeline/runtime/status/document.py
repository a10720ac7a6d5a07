"""The status of an app as a JSON document, for `pipeline status --json` and `/api/status`."""

from __future__ import annotations

from typing import Any

from pipeline.core.suggestions import Problem
from pipeline.ports import task_fields
from pipeline.runtime.status.app_status import AppStatus, GroupLetters, TaskStatus, WorkerStatus
from pipeline.runtime.status.groups import (
    GroupStatus,
    ProblemCause,
    group_statuses,
    problem_causes,
    spare_workers,
    task_ranges,
)

__all__ = ["status_document"]


def status_document(found: AppStatus) -> dict[str, Any]:
    """The document. The names of its fields are stable."""
    return {
        "app": found.app,
        "tasks": [_task(status) for status in found.tasks],
        "groups": [_group(each) for each in group_statuses(found)],
        "workers": [_worker(worker) for worker in found.workers],
        "dead_letters": [_letters(each) for each in found.letters],
        "problems": [_problem(problem) for problem in found.problems],
        "causes": [_cause(cause) for cause in problem_causes(found.problems)],
        "warnings": [warning] if (warning := spare_workers(found)) else [],
    }


def _task(status: TaskStatus) -> dict[str, Any]:
    return {
        **task_fields(status.task, status.partitions),
        "phase": status.phase.value,
        "worker": status.worker,
        "next_worker": status.next_worker,
        "seq": status.seq,
        "lag": status.lag,
        "positions": dict(status.positions),
        "last_entry_ms": status.entry_ms,
        "problem": status.problem,
        "last_checkpoint_ms": status.checkpoint_ms,
        "checkpoint_bytes": status.checkpoint_bytes,
        "journal_bytes": status.journal_bytes,
        "restore_s": status.restore_s,
        "database": status.database,
        "records_per_s": status.records_per_s,
        "clock_ms": status.clock_ms,
        "clock_behind_s": status.clock_behind_s,
    }


def _group(each: GroupStatus) -> dict[str, Any]:
    return {
        "group": each.group,
        "task_count": each.tasks,
        "phases": {phase.value: count for phase, count in each.phases.items()},
        "lag": each.lag,
        "max_lag": each.max_lag,
        "records_per_s": each.records_per_s,
        "oldest_commit_ms": each.oldest_commit_ms,
        "open_dead_letters": each.open_letters,
        "retried": each.retried,
        "restore_s": each.restore_s,
    }


def _worker(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "process": worker.process,
        "weight": worker.weight,
        "task_count": worker.tasks,
        "waiting": worker.waiting,
        "groups": sorted(worker.rings),
        "watched": worker.watched,
    }


def _letters(each: GroupLetters) -> dict[str, Any]:
    return {
        "group": each.group.group,
        "open": each.letters.open,
        "complete": each.letters.whole,
        "failed_last_minute": round(each.letters.recent, 1),
        "last_failed_ms": each.letters.last_ms,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "message": problem.text,
        "hint": problem.hint,
        "tasks": [f"{task.group}/{task.number}" for task in problem.tasks],
    }


def _cause(cause: ProblemCause) -> dict[str, Any]:
    return {
        "message": cause.text,
        "hint": cause.first.hint,
        "count": cause.count,
        "tasks": task_ranges(cause.tasks),
    }
