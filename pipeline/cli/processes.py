"""`pipeline worker --processes N`: runs the same command N times under a supervisor."""

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
    """Run `count` worker processes until SIGTERM or SIGINT. Return the exit code.

    Each process has the arguments of this one, its own worker id `<worker_id>-<n>`, and its own state directory
    `<state_dir>/process.<n>`. The names of apps have no dot, so the directory cannot be that of an app. It does not
    contain the worker's name, so that a container that restarts under another name finds its state.

    Raises:
        ConfigError: The worker id is not valid.
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
    """The command as it was typed, so that it finds the same modules. Of two equal options, the last one counts."""
    typed = [word for word in sys.orig_argv[1:] if word != "--"]
    return [sys.executable, *typed]
