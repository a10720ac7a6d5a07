"""`pipeline worker MODULE:APP`: runs a worker until SIGTERM, or several under a supervisor."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app
from pipeline.cli.options import KafkaOption, say
from pipeline.cli.processes import run_processes
from pipeline.cli.progress import ProgressLine
from pipeline.config import WorkerSettings, load_settings
from pipeline.errors import PipelineError
from pipeline.processes.lifeline import ended_by, tie
from pipeline.processes.wiring import run_app, with_worker_id

__all__ = ["worker"]

_DEFAULTS = WorkerSettings()


class LogLevel(StrEnum):
    """The lowest level that the worker logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def worker(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as in flights.app:app.")],
    kafka: KafkaOption = None,
    state_dir: Annotated[
        Path | None, typer.Option(help=f"The directory of the tasks' state. Default: {_DEFAULTS.state_dir}.")
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The worker's id, unique among the workers of the app. Default: the host's name. "
            "With --processes, the processes have the ids ID-1, ID-2 and so on.",
        ),
    ] = None,
    weight: Annotated[
        int | None,
        typer.Option(
            help="The share of the tasks: a worker of weight 2 gets twice as many as one of weight 1. "
            f"Default: {_DEFAULTS.weight}.",
            min=1,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Run N worker processes, and restart those that end. Default: run the worker in this process.",
            min=1,
            max=256,
        ),
    ] = None,
    commit_interval_ms: Annotated[
        int | None,
        typer.Option(
            help=f"Milliseconds between two commits of a task. Default: {_DEFAULTS.commit_interval_ms}.",
            min=1,
        ),
    ] = None,
    topics_dir: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The directory of the topic declarations, which are compared with the cluster. "
            f"Default: {_DEFAULTS.topics_dir}, if it exists.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The settings file. Default: pipeline.toml.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")] = LogLevel.INFO,
    supervised: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a worker of an app until SIGTERM or Ctrl-C. All workers of an app share its tasks.

    Variables such as PIPELINE_WORKER_ID and the section [worker] of pipeline.toml set the same options. An option
    overrides its variable, and the variable overrides the file.

    SIGUSR1 prints the stack of every thread to standard error, and changes nothing.
    """
    report = tie(supervised) if supervised is not None else None
    faulthandler.register(signal.SIGUSR1)  # to find a handler that does not return
    overrides = {
        "bootstrap_servers": kafka,
        "state_dir": state_dir,
        "worker_id": worker_id,
        "weight": weight,
        "commit_interval_ms": commit_interval_ms,
        "topics_dir": topics_dir,
    }
    settings = load_settings(overrides, file=config)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    configure_logs(log_level.value, worker=settings.worker.worker_id)
    line = ProgressLine(processes) if sys.stderr.isatty() and supervised is None else None
    if processes is not None and supervised is None:
        code = run_processes(processes, settings.worker, line)
        _end_line(line)
        raise typer.Exit(code)
    app = find_app(target)
    before = ended_by(supervised) if supervised is not None else None
    try:
        run_app(app, settings, report or line, before)
    except PipelineError as error:
        _end_line(line)
        # Threads may still wait for an unreachable broker, and would prevent the exit of the process.
        who = f"worker {settings.worker.worker_id}: " if supervised is not None else ""
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"error: {who}{error}", markup=False, style=None
        )
        sys.stderr.flush()
        os._exit(error.exit_code)
    _end_line(line)
    if line is not None:
        say("stopped")


def _end_line(line: ProgressLine | None) -> None:
    if line is not None:
        line.end()
