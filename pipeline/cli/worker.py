"""`pipeline worker MODULE:APP`: run a worker until SIGTERM."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app
from pipeline.cli.options import KafkaOption, counted, say
from pipeline.config import WorkerSettings, load_settings
from pipeline.errors import PipelineError
from pipeline.runtime.worker import Progress
from pipeline.wiring import build_worker, run_until_signal

__all__ = ["worker"]

_DEFAULTS = WorkerSettings()


class LogLevel(StrEnum):
    """From which level on the worker logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def worker(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    kafka: KafkaOption = None,
    state_dir: Annotated[
        Path | None, typer.Option(help=f"Where tasks keep their state. Default: {_DEFAULTS.state_dir}.")
    ] = None,
    worker_id: Annotated[str | None, typer.Option(help="This worker's name. Default: the host's.")] = None,
    commit_interval_ms: Annotated[
        int | None,
        typer.Option(help=f"Time between commits of a task. Default: {_DEFAULTS.commit_interval_ms}.", min=1),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file. Default: pipeline.toml.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
) -> None:
    """Run a worker that owns every task of an app, until SIGTERM or Ctrl-C.

    SIGUSR1 prints the stack of every thread to standard error and changes nothing.
    """
    configure_logs(log_level.value)
    faulthandler.register(signal.SIGUSR1)  # says where every thread is: for a handler that never returns
    settings = load_settings(
        {
            "bootstrap_servers": kafka,
            "state_dir": state_dir,
            "worker_id": worker_id,
            "commit_interval_ms": commit_interval_ms,
        },
        file=config,
    )
    app = find_app(target)
    running = build_worker(app, settings)
    line = _ProgressLine() if sys.stderr.isatty() else None
    try:
        run_until_signal(running, settings.worker, line)
    except PipelineError as error:
        if line is not None:
            line.end()
        # Threads may still wait for a broker that is away, and would keep the process from ending.
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"error: {error}", markup=False, style=None
        )
        sys.stderr.flush()
        os._exit(error.exit_code)
    if line is not None:
        line.end()
        say("stopped")


class _ProgressLine:
    """One line on the terminal, rewritten each second."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), 0)
        self._shown = False

    def end(self) -> None:
        """What is printed next begins a line of its own."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        before, records = self._last
        rate = (progress.records - records) / max(now - before, 1e-9)
        self._last = (now, progress.records)
        self._shown = True
        tasks = f"{progress.live} live"
        if progress.restoring:
            tasks += f", {progress.restoring} restoring"
        if progress.failed:
            tasks += f", {progress.failed} FAILED"
        sys.stderr.write(
            f"\r\x1b[K{counted(progress.records, 'record')}  {rate:,.0f}/s  "
            f"{counted(progress.outputs, 'output')}  {counted(progress.commits, 'commit')}  tasks: {tasks}"
        )
        sys.stderr.flush()
