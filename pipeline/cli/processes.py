"""`pipeline worker --processes N`: the same command N times, under a supervisor."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from structlog import get_logger

from pipeline.config import WorkerSettings
from pipeline.core.membership import check_worker_id
from pipeline.ports import SystemClock
from pipeline.processes.lifeline import TiedProcess
from pipeline.processes.signals import heard_signals
from pipeline.processes.supervisor import Supervisor, process_id
from pipeline.processes.system import SystemRandom
from pipeline.runtime.counters import WorkerCounters

__all__ = ["run_processes"]


def run_processes(
    count: int, settings: WorkerSettings, report: Callable[[WorkerCounters], None] | None = None
) -> int:
    """Run `count` worker processes until SIGTERM or SIGINT; the exit code. Raises ConfigError.

    Each has the arguments of this one, a worker id and a state directory of its own: `<worker_id>-<n>` and
    `<state_dir>/process.<n>` (an app's name has no dot). The directory goes without the worker's name, so that a
    container which comes back under another name finds what is on its disk.
    """
    check_worker_id(process_id(settings.worker_id, count))

    def start(name: str, number: int, code_before: int) -> TiedProcess:
        place = str(settings.state_dir / f"process.{number}")
        command = [*_this_command(), "--worker-id", name, "--state-dir", place, "--supervised"]
        return TiedProcess(command, code_before)

    supervisor = Supervisor(
        settings.worker_id, count, start, SystemClock(), SystemRandom(), get_logger("pipeline")
    )
    stop = threading.Event()
    with heard_signals(stop):
        return supervisor.run(stop, settings.stop_timeout_s, report)


def _this_command() -> list[str]:
    """As it was typed, so that what it finds on its path is found again; the last of two equal options counts."""
    typed = [word for word in sys.orig_argv[1:] if word != "--"]
    return [sys.executable, *typed]
