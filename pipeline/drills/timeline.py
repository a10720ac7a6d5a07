"""The timeline of each touched task: from the journals, the status, and the logs of local workers.

A restore is logged by the worker as `task_live`, with its duration. The log of a worker is found if its standard error
is a file. Without a log, the stages of a restore are unknown, and the journal still has the acquire entry and the first
commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.core.journal_format import EntryKind
from pipeline.core.names import TaskId
from pipeline.drills.drill import Run
from pipeline.drills.observation import short
from pipeline.drills.report import TaskTimeline
from pipeline.drills.scene import WorkerTarget

__all__ = ["LogMarks", "timeline_of", "touched_tasks"]


@dataclass
class LogMarks:
    """The logs of workers, and where each ended before the fault."""

    sizes: dict[Path, int] = field(default_factory=dict)

    @staticmethod
    def of(workers: Sequence[WorkerTarget]) -> LogMarks:
        """The logs of these workers, as they are now."""
        logs = [worker.log for worker in workers if worker.log is not None]
        return LogMarks({log: log.stat().st_size for log in logs})

    def lines(self, since_ms: int, others: Sequence[Path] = ()) -> list[dict[str, Any]]:
        """The JSON lines that were logged since the fault, in the order of their times."""
        found = []
        for log in {*self.sizes, *others}:
            with suppress(OSError), log.open("rb") as file:
                file.seek(self.sizes.get(log, 0))
                for line in file:
                    with suppress(msgspec.DecodeError, ValueError, KeyError, TypeError):
                        fields = msgspec.json.decode(line)
                        fields["at_ms"] = int(datetime.fromisoformat(fields["timestamp"]).timestamp() * 1000)
                        found.append(fields)
        return sorted(
            (line for line in found if line["at_ms"] >= since_ms), key=lambda line: int(line["at_ms"])
        )


def touched_tasks(run: Run, until_ms: int, pause_s: float) -> list[TaskId]:
    """The tasks that were acquired again since the fault, or whose commits paused for longer than `pause_s`.

    After `until_ms`, the drill restores the workers, and then tasks move to balance the load. Only predicted tasks
    count then: one may not have recovered before.
    """
    found = []
    for task in run.observer.tasks:
        moved = any(
            entry.kind is EntryKind.ACQUIRE and (entry.wall_ms <= until_ms or task in run.predicted)
            for entry in run.observer.entries(task, run.injected_ms)
        )
        if moved or run.observer.pause_s(task, run.injected_ms, until_ms) > pause_s:
            found.append(task)
    return found


def timeline_of(run: Run, task: TaskId, lines: Sequence[Mapping[str, Any]]) -> TaskTimeline:
    """When the task reached each stage, in seconds after the fault."""
    start_ms = run.struck_ms.get(task, run.injected_ms)
    entries = run.observer.entries(task, max(start_ms, run.healed_ms))
    acquired = next((entry for entry in entries if entry.kind is EntryKind.ACQUIRE), None)
    after_ms = acquired.wall_ms if acquired is not None else max(start_ms, run.healed_ms)
    commit = next((e for e in entries if e.kind is EntryKind.COMMIT and e.wall_ms >= after_ms), None)
    caught_up_ms = run.observer.caught_up_ms(task, after_ms, run.lag_before(task))
    idle_ms = run.observer.idle_ms(task, after_ms)
    if acquired is not None and idle_ms is not None and (commit is None or idle_ms <= commit.wall_ms):
        idle_ms = after_ms  # it had no input since it was acquired; the status shows this up to seconds later
    recovered_ms = _earliest(commit.wall_ms if commit is not None else None, idle_ms)
    if caught_up_ms is not None and idle_ms is not None:
        caught_up_ms = min(caught_up_ms, idle_ms)
    if caught_up_ms is not None and recovered_ms is not None:
        caught_up_ms = max(caught_up_ms, recovered_ms)
    owner = acquired.owner if acquired is not None else ""
    live = _live_line(task, owner, [line for line in lines if line["at_ms"] >= start_ms])
    fence_ms = replayed_ms = None
    if live is not None:
        replayed_ms = int(live["at_ms"])
        fence_ms = replayed_ms - round(1000 * float(live.get("restore_s", 0.0)))
        if (
            acquired is not None
        ):  # the line is logged after the commit of this entry, which follows the replay
            replayed_ms = max(fence_ms, min(replayed_ms, acquired.wall_ms))
    before, now = run.scene.sample.of(task), run.observer.samples[-1].of(task)
    last_owner = now.worker if now is not None else ""
    detected_ms = _detected_ms(run, task, fence_ms or after_ms) if acquired is not None else None

    def seconds(at_ms: int | None) -> float | None:
        return None if at_ms is None else round(max(0, at_ms - start_ms) / 1000, 2)

    copy_s = live.get("copy_s") if live is not None else None
    return TaskTimeline(
        task=short(task),
        predicted=task in run.predicted,
        before=before.worker if before is not None else "",
        after=owner or last_owner,
        last_owner=last_owner,
        detect_s=seconds(detected_ms),
        fence_s=seconds(fence_ms),
        copy_s=seconds(fence_ms + round(1000 * float(copy_s))) if copy_s and fence_ms is not None else None,
        replay_s=seconds(replayed_ms),
        acquired_s=seconds(acquired.wall_ms if acquired is not None else None),
        first_commit_s=seconds(commit.wall_ms if commit is not None else None),
        caught_up_s=seconds(caught_up_ms),
        recovered_s=seconds(recovered_ms),
        restored_from=str(live.get("restored_from", "")) if live is not None else "",
        replayed_entries=live.get("replayed_entries") if live is not None else None,
    )


def _detected_ms(run: Run, task: TaskId, fence_ms: int) -> int | None:
    """When the loss of the owner was first seen, or a claim. The status is read once per second, so it may be late."""
    start_ms = run.struck_ms.get(task, run.injected_ms)
    status = run.scene.sample.of(task)
    workers = run.scene.sample.status.workers
    process = next(
        (each.process for each in workers if status is not None and each.worker == status.worker), ""
    )
    seen = [
        run.observer.claimed_ms(task, start_ms),
        run.observer.missed_ms(process, start_ms) if process else None,
    ]
    known = [at for at in seen if at is not None]
    return min([*known, fence_ms]) if known else None


def _earliest(*times: int | None) -> int | None:
    return min((at for at in times if at is not None), default=None)


def _live_line(task: TaskId, owner: str, lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The line of the first restore of the task since the fault, by the worker that acquired it; empty: by any."""
    wanted = (task.app, task.group, task.number)
    for line in lines:
        if (
            line.get("event") == "task_live"
            and (line.get("app"), line.get("group"), line.get("task")) == wanted
            and owner in {"", line.get("worker", owner)}
        ):
            return line
    return None
