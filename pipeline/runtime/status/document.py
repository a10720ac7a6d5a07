"""The status of an app as a JSON document, for `pipeline status --json` and `/api/status`."""

from __future__ import annotations

from typing import Any

from pipeline.ports import task_fields
from pipeline.runtime.status.found import AppStatus

__all__ = ["status_document"]


def status_document(found: AppStatus) -> dict[str, Any]:
    """The document. The names of its fields are stable."""
    return {
        "app": found.app,
        "tasks": [
            {
                **task_fields(status.task),
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
            }
            for status in found.tasks
        ],
        "workers": [
            {
                "worker": worker.worker,
                "process": worker.process,
                "weight": worker.weight,
                "task_count": worker.tasks,
                "waiting": worker.waiting,
            }
            for worker in found.workers
        ],
        "dead_letters": [
            {
                "group": each.group.group,
                "open": each.letters.open,
                "complete": each.letters.whole,
                "failed_last_minute": round(each.letters.recent, 1),
                "last_failed_ms": each.letters.last_ms,
            }
            for each in found.letters
        ],
        "problems": [{"message": problem.text, "hint": problem.hint} for problem in found.problems],
    }
