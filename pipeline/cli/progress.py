"""The line on the terminal of `pipeline worker`."""

from __future__ import annotations

import sys
import time

from pipeline.cli.options import counted
from pipeline.runtime.counters import WorkerCounters

__all__ = ["ProgressLine"]


class ProgressLine:
    """One line on the terminal, rewritten each second. `processes`: how many it is the sum of."""

    def __init__(self, processes: int | None = None) -> None:
        self._head = f"processes: {processes}  " if processes else ""
        self._last = (time.monotonic(), 0)
        self._shown = False

    def end(self) -> None:
        """What is printed next begins a line of its own."""
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
        if progress.following:
            tasks += f", {progress.following} following"
        if progress.failed:
            tasks += f", {progress.failed} FAILED"
        if progress.retried:
            tasks += f"  {counted(progress.retried, 'try')} failed"
        if progress.duplicates:
            tasks += f"  {counted(progress.duplicates, 'duplicate')} dropped"
        if progress.late_duplicates:
            tasks += f"  {counted(progress.late_duplicates, 'late duplicate')} let through"
        rows = f"{counted(progress.rows, 'row')}  " if progress.rows else ""
        sys.stderr.write(
            f"\r\x1b[K{self._head}{counted(progress.records, 'record')}  {rate:,.0f}/s  "
            f"{counted(progress.outputs, 'output')}  {rows}{counted(progress.commits, 'commit')}  tasks: {tasks}"
        )
        sys.stderr.flush()
