"""What the local broker reports to its user: its error, `BrokerError`, the end of a node's log, and progress.

The installation and the start call one function with the progress of their long steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError

__all__ = ["SHOWN_LINES", "BrokerError", "Report", "StepProgress", "died", "last_lines", "silent"]

SHOWN_LINES = 15


class BrokerError(PipelineError):
    """The local broker cannot be installed, started or stopped. Reaction: print the message and exit with 1.

    The cause is on this machine: a port, a file, memory or the network. The hint tells its user how to fix it.
    """


def last_lines(log: Path, count: int) -> str:
    """The last lines of a log; empty if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 400 * count))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def died(log: Path, node_id: int) -> BrokerError:
    """The error for a node that ended while it started, with the end of its log."""
    tail = last_lines(log, SHOWN_LINES)
    hint = f"the whole log: {log}"
    if "No space left on device" in tail:
        hint = f"the disk is full: free some space, or choose another with --data-dir ({hint})"
    elif "insufficient memory" in tail or "OutOfMemoryError" in tail:
        hint = f"not enough memory: end other programs, or raise the container's limit ({hint})"
    return BrokerError(f"node {node_id} ended while it started; its last words:\n{tail}", hint=hint)


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step, with its progress in bytes if it is known (`total_bytes` above 0)."""

    step: str
    done_bytes: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        if not self.total_bytes:
            return self.step
        return f"{self.step}: {self.done_bytes / 1e6:.0f} of {self.total_bytes / 1e6:.0f} MB"


Report = Callable[[StepProgress], None]


def silent(progress: StepProgress) -> None:
    """Discard the report."""
