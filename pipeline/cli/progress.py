"""The progress line of `pipeline worker` on a terminal."""

from __future__ import annotations

import sys
import time

from pipeline.cli.options import counted
from pipeline.runtime.counters import WorkerCounters

__all__ = ["ProgressLine"]


class ProgressLine:
    """One line on the terminal, rewritten each second. With `processes`, it has the sums over that many."""

    def __init__(self, processes: int | None = None) -> None:
        self._head = f"processes: {processes}  " if processes else ""
        self._last = (time.monotonic(), 0)
        self._shown = False

    def end(self) -> None:
        """End the line, so that the next output starts on a new line."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False

    def __call__(self, progress: WorkerCounters) -> None:
        now = time.monotonic()
        before, records = self._last
        rate = (progress.records - records) / max(now - before, 1e-9)
        self._last = (now, progress.records)
        self._shown = True
        tasks = f"{progress.live} live"
        if progress.restoring:
            tasks += f", {progress.restoring} restoring"
        if progress.standby:
            tasks += f", {progress.standby} standby"
        if progress.failed:
            tasks += f", {progress.failed} FAILED"
        if progress.retried:
            tasks += f"  {counted(progress.retried, 'attempt')} failed"
        if progress.duplicates:
            tasks += f"  {counted(progress.duplicates, 'duplicate')} dropped"
        if progress.late_duplicates:
            tasks += f"  {counted(progress.late_duplicates, 'late duplicate')} processed"
        rows = f"{counted(progress.rows, 'row')}  " if progress.rows else ""
        sys.stderr.write(
            f"\r\x1b[K{self._head}{counted(progress.records, 'record')}  {rate:,.0f}/s  "
            f"{counted(progress.outputs, 'output')}  {rows}{counted(progress.commits, 'commit')}  tasks: {tasks}"
        )
        sys.stderr.flush()
