"""The problems in an app's status that an operator should handle. The hint of each names its runbook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.core.names import GroupId, TaskId
from pipeline.core.notes import DeferredGroup
from pipeline.core.suggestions import Problem, are, counted
from pipeline.runtime.status.app_status import GroupLetters, TaskPhase, TaskStatus, WorkerStatus

__all__ = ["LETTERS_PER_MINUTE", "late_groups", "letter_problems", "problems_of"]

# A live task with lag and no commit for this long is suspicious. The loss of a host is noticed after 10 s.
SILENT_S = 5
# Ten times the default interval between checkpoints.
CHECKPOINT_OLD_S = 600
# Single bad records stay below it. A handler or a producer that fails for a share of all records does not.
LETTERS_PER_MINUTE = 10


def problems_of(
    app: str, tasks: Sequence[TaskStatus], workers: Sequence[WorkerStatus], now_ms: int
) -> list[Problem]:
    """The problems of tasks and workers, the most urgent first."""
    found = [_failure(status) for status in tasks if status.phase is TaskPhase.FAILED]
    found += _waits([status for status in tasks if status.phase is not TaskPhase.FAILED and status.problem])
    found += _without_worker(app, tasks, workers)
    silent = [status for status in tasks if _is_silent(status, now_ms)]
    if workers and silent:
        found.append(
            _of_tasks(
                silent,
                f"records are waiting, and nothing was committed for {SILENT_S} s",
                f"worker {silent[0].worker} may be dead (detected after 10 s at most), a handler takes long, or a "
                "record is retried: runbooks/commits-slow.md",
            )
        )
    if old := [status for status in tasks if _checkpoint_is_old(status)]:
        found.append(
            _of_tasks(
                old,
                f"no checkpoint for {CHECKPOINT_OLD_S // 60} min, although entries were written",
                "search the workers' logs for checkpoint_: runbooks/checkpoint-store-unavailable.md",
            )
        )
    if waiting := [status.worker for status in workers if status.waiting]:
        found.append(
            Problem(
                f"workers of another version wait for the others to leave: {', '.join(waiting)}",
                "stop the workers of the old version: runbooks/replace-workers.md",
            )
        )
    return found


def _without_worker(
    app: str, tasks: Sequence[TaskStatus], workers: Sequence[WorkerStatus]
) -> Iterator[Problem]:
    """An unfinished retirement, no worker at all, and tasks that no worker runs."""
    retired = [status for status in tasks if status.phase is TaskPhase.RETIRED]
    if retired and len(retired) < len([status for status in tasks if not status.database]):
        yield Problem(
            f"{len(retired)} of {counted(len(tasks), 'task')} {are(len(retired))} retired, and "
            "the others are not",
            f"finish it: pipeline migrate switch ... --retire; or undo it: pipeline migrate revive {app}; "
            "see runbooks/partitions-changed.md",
        )
    unowned = [status for status in tasks if status.phase in {TaskPhase.UNOWNED, TaskPhase.NEW}]
    if not workers and not retired:
        yield Problem(
            f"no worker of {app} is alive",
            "start one: pipeline worker MODULE:APP; if it ends again, follow runbooks/worker-down.md",
        )
    elif workers and unowned:
        run = {group for worker in workers for group in worker.rings}
        left = [status for status in unowned if status.task.group not in run]
        for group in sorted({status.task.group for status in left}):
            own = [status for status in left if status.task.group == group]
            yield Problem(
                f"no live worker runs group {group}: {_named(own)}",
                f"start one: pipeline worker MODULE:APP --group {group}. If the app no longer has this group, forget "
                "it: runbooks/task-not-live.md",
                _ids(own),
                "no worker runs the group",
            )
        if others := [status for status in unowned if status.task.group in run]:
            yield Problem(
                f"{len(others)} of {counted(len(tasks), 'task')} {'has' if len(others) == 1 else 'have'} no worker: "
                f"{_named(others)}",
                "a worker takes them within seconds; if not, follow runbooks/task-not-live.md",
                _ids(others),
                "no worker",
            )


def late_groups(waits: Mapping[GroupId, Sequence[DeferredGroup]]) -> list[Problem]:
    """The groups that could not start, each with its workers and the reason."""
    found = []
    for group, waiting in sorted(waits.items()):
        text, _, hint = waiting[0].problem.partition("\n  -> ")
        workers = ", ".join(about.worker for about in waiting)
        where = f"group {group.app}/{group.group} has not started on {workers}"
        found.append(
            Problem(f"{where}: {text}", _with_runbook(hint or "read the worker's log", "task-not-live"))
        )
    return found


def letter_problems(letters: Sequence[GroupLetters], per_minute: int = LETTERS_PER_MINUTE) -> list[Problem]:
    """The groups whose records fail at a high rate, then those with open dead letters: not replayed or discarded."""
    failing = [
        Problem(
            f"group {each.group.app}/{each.group.group} wrote {counted(round(each.letters.recent), 'dead letter')} "
            "in the "
            f"last minute, more than {per_minute:,}",
            "find the cause before you replay them: runbooks/poison-record.md",
        )
        for each in letters
        if round(each.letters.recent) > per_minute
    ]
    return failing + [
        Problem(
            f"group {each.group.app}/{each.group.group} has {counted(each.letters.open, 'open dead letter')}: "
            "replay or discard them",
            f"pipeline deadletters list MODULE:APP --group {each.group.group} --open; see runbooks/poison-record.md",
        )
        for each in letters
        if each.letters.open
    ]


def _failure(status: TaskStatus) -> Problem:
    """The problem of a failed task, without the stack frames, which are in the worker's log."""
    text, _, hint = status.problem.partition("\n  -> ")
    reason = text.splitlines()[0].removeprefix(f"task {status.task}: ") if text else "no reason given"
    return Problem(
        f"task {status.task} failed on worker {status.worker}: {reason}",
        _with_runbook(hint or "fix the cause and restart that worker", "task-failed"),
        (status.task,),
        f"failed: {reason}",
    )


def _waits(tasks: Sequence[TaskStatus]) -> list[Problem]:
    """One problem for each reason, because an unreachable database affects all its tasks."""
    by_reason: dict[str, list[TaskStatus]] = {}
    for status in tasks:
        by_reason.setdefault(status.problem, []).append(status)
    found = []
    for reason, waiting in by_reason.items():
        text, _, hint = reason.partition("\n  -> ")
        hint = _with_runbook(hint or "read the worker's log", _runbook_of_wait(waiting[0]))
        found.append(_of_tasks(waiting, text, hint))
    return found


def _runbook_of_wait(status: TaskStatus) -> str:
    """The runbook for a task that waits, if the reason names none."""
    if status.retrying:
        return "poison-record"
    return "commits-slow" if status.phase in {TaskPhase.LIVE, TaskPhase.MOVING} else "task-not-live"


def _with_runbook(hint: str, runbook: str) -> str:
    """The hint of an error, with this runbook if it names none."""
    return hint if "runbooks/" in hint else f"{hint.rstrip('.')}; see runbooks/{runbook}.md"


def _is_silent(status: TaskStatus, now_ms: int) -> bool:
    running = status.phase in {TaskPhase.LIVE, TaskPhase.MOVING} and not status.database
    return running and not status.problem and status.lag > 0 and now_ms - status.entry_ms > SILENT_S * 1000


def _checkpoint_is_old(status: TaskStatus) -> bool:
    age_ms = status.entry_ms - status.checkpoint_ms
    return bool(status.checkpoint_ms) and age_ms > CHECKPOINT_OLD_S * 1000


def _of_tasks(tasks: Sequence[TaskStatus], cause: str, hint: str) -> Problem:
    return Problem(f"{_named(tasks)}: {cause}", hint, _ids(tasks), cause)


def _ids(tasks: Sequence[TaskStatus]) -> tuple[TaskId, ...]:
    return tuple(status.task for status in tasks)


def _named(tasks: Sequence[TaskStatus]) -> str:
    return ", ".join(str(status.task) for status in tasks[:5]) + (" ..." if len(tasks) > 5 else "")
