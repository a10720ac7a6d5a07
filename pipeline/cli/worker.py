"""`pipeline worker MODULE:APP`: runs a worker until SIGTERM, or several under a supervisor."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from structlog import get_logger

from pipeline.cli.logs import configure_logs
from pipeline.cli.lookup import find_app
from pipeline.cli.options import KafkaOption, print_message
from pipeline.config import MAX_PORT, HttpSettings, Settings, WorkerSettings, load_settings
from pipeline.config.loading import load_settings_over
from pipeline.core.departures import DepartureRecord
from pipeline.core.membership import check_worker_id
from pipeline.core.suggestions import counted
from pipeline.errors import ConfigError, PipelineError
from pipeline.faust import companion_of, fallback_for
from pipeline.ports import SystemClock
from pipeline.processes.lifeline import TiedProcess, ended_by, tie
from pipeline.processes.signals import heard_signals
from pipeline.processes.supervisor import Supervisor, process_id
from pipeline.processes.system import SystemRandom
from pipeline.processes.wiring import DepartureNotes, run_app, with_worker_id
from pipeline.runtime.metrics.figures import WorkerCounters

if TYPE_CHECKING:
    from pipeline.drills.reports import ServedReports

__all__ = ["ProgressLine", "run_processes", "worker"]

_DEFAULTS, _HTTP = WorkerSettings(), HttpSettings()


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
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Run only this group of the app; can be repeated. Default: all groups.",
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
            help="Milliseconds between two commits of a task that is behind. A task that keeps up commits earlier. "
            f"Default: {_DEFAULTS.commit_interval_ms}.",
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
    http_host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help=f"The address of the HTTP port. Default: {_HTTP.host}."),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Serve the page of the app, probes and metrics on this port. With --processes, process n uses "
            f"PORT + n - 1. Default: {_HTTP.port}, which means no port.",
            min=0,
            max=MAX_PORT,
        ),
    ] = None,
    peer_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Listen for the other workers on this port. With --processes, process n uses PORT + n - 1. "
            f"Default: {_DEFAULTS.peer_port}, which means a free port.",
            min=0,
            max=MAX_PORT,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The settings file. Default: pipeline.toml.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The lowest level that is logged.")] = LogLevel.INFO,
    supervised: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a worker of an app until SIGTERM or Ctrl-C. All workers of an app share its tasks; with --group, those of
    the groups that they run.

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
        "groups": group or None,
        "commit_interval_ms": commit_interval_ms,
        "topics_dir": topics_dir,
        "peer_port": peer_port,
        "http_host": http_host,
        "http_port": http_port,
    }
    settings = load_settings(overrides, file=config)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    configure_logs(log_level.value, worker=settings.worker.worker_id)
    line = ProgressLine(processes) if sys.stderr.isatty() and supervised is None else None
    if processes is not None and supervised is None:
        code = run_processes(processes, settings, line)
        _end_line(line)
        raise typer.Exit(code)
    app = find_app(target)
    settings = load_settings_over(fallback_for(app), overrides, file=config)
    settings = replace(settings, worker=with_worker_id(settings.worker))
    before = ended_by(supervised) if supervised is not None else None
    try:
        companion = companion_of(app, settings)
        run_app(app, settings, report or line, before, target, _drill_reports(settings), companion)
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
        print_message("stopped")


def _drill_reports(settings: Settings) -> ServedReports | None:
    """The reports for the page; None without an HTTP port."""
    if not settings.http.port:
        return None
    from pipeline.drills.reports import ServedReports  # noqa: PLC0415 - loaded only if it is used

    return ServedReports(settings.drills.directory)


def _end_line(line: ProgressLine | None) -> None:
    if line is not None:
        line.end()


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

    def __call__(self, progress: WorkerCounters, _departure: DepartureRecord | None = None) -> None:
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


def run_processes(
    count: int, settings: Settings, report: Callable[[WorkerCounters], None] | None = None
) -> int:
    """Run `count` worker processes until SIGTERM or SIGINT. Return the exit code.

    Each process has the arguments of this one, its own worker id `<worker_id>-<n>`, and its own state directory
    `<state_dir>/process.<n>`. The names of apps have no dot, so the directory cannot be that of an app. It does not
    contain the worker's name, so that a container that restarts under another name finds its state. The HTTP port and
    the peer port of process n are n - 1 above those of the settings.

    Raises:
        ConfigError: The worker id is not valid, or the last process would have no port.
    """
    worker, first_port = settings.worker, settings.http.port
    check_worker_id(process_id(worker.worker_id, count))
    for what, flag, first in (("HTTP", "--http-port", first_port), ("peer", "--peer-port", worker.peer_port)):
        if first + count - 1 > MAX_PORT:
            raise ConfigError(
                f"{count} processes need the {what} ports {first} to {first + count - 1}",
                hint=f"ports end at {MAX_PORT}: choose a lower {flag}",
            )

    def start(name: str, number: int, code_before: int) -> TiedProcess:
        own = ["--worker-id", name, "--state-dir", str(worker.state_dir / f"process.{number}")]
        if first_port:
            own += ["--http-port", str(first_port + number - 1)]
        if worker.peer_port:
            own += ["--peer-port", str(worker.peer_port + number - 1)]
        return TiedProcess([*_this_command(), *own, "--supervised"], code_before)

    supervisor = Supervisor(
        worker.worker_id,
        count,
        start,
        SystemClock(),
        SystemRandom(),
        get_logger("pipeline"),
        DepartureNotes(settings.kafka, get_logger("pipeline")).write,
    )
    stop = threading.Event()
    with heard_signals(stop):
        return supervisor.run(stop, worker.stop_timeout_s, report)


def _this_command() -> list[str]:
    """The command as it was typed, so that it finds the same modules. Of two equal options, the last one counts."""
    typed = [word for word in sys.orig_argv[1:] if word != "--"]
    return [sys.executable, *typed]
