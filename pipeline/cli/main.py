"""The `pipeline` command: assembles its commands, and turns expected errors into text and exit codes.

It also ends the process although the user's module has left threads or child processes running. The interpreter would
wait for non-daemon threads and for child processes of multiprocessing without a limit. A worker that has stopped would
then look alive to its supervisor, and a failed worker would not be restarted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.cli.help import Commands, UsageError, adopt, describe
from pipeline.errors import DeniedError, PipelineError

__all__ = ["COMMANDS", "GROUPS", "assemble", "end_soon", "main", "run"]

# The module and the name of each command. Only the typed command is loaded, so that a worker restarts fast.
COMMANDS = {
    "new": "new:new",
    "demo": "demo:demo",
    "worker": "worker:worker",
    "status": "status:status",
    "ui": "ui:ui",
    "probe": "probe:probe",
    "reset": "reset:reset",
    "migrate": "migrate:migrate_app",
    "faust": "faust:faust_app",
    "table": "table:table_app",
    "journal": "journal:journal_app",
    "debug": "debug:debug",
    "checkpoints": "checkpoints:checkpoints_app",
    "drill": "drill:drill_app",
    "broker": "broker:broker_app",
    "topics": "topics:topics_app",
    "produce": "produce:produce",
    "loads": "loads:loads_app",
    "consume": "consume:consume",
    "deadletters": "deadletters:deadletters_app",
    "ring": "ring:ring_app",
    "runbook": "runbook:runbook",
    "doctor": "doctor:doctor",
    "acls": "acls:acls",
}


# How the help groups the commands. Every command is in one group.
GROUPS = {
    "Start": ("new", "demo"),
    "Run and inspect an app": ("worker", "status", "probe", "ui", "table", "journal", "debug", "checkpoints"),
    "Repair and change an app": ("deadletters", "reset", "migrate", "faust"),
    "Rehearse failures": ("drill",),
    "Check and secure": ("doctor", "acls"),
    "Topics and records": ("topics", "produce", "loads", "consume"),
    "Development and help": ("broker", "ring", "runbook"),
}

_EXIT_CODES = {
    0: "success",
    1: "an error, or a problem that the command has found, such as a failed task",
    2: "the command line is wrong",
    3: "Kafka is unreachable",
    4: "`topics plan --check` found differences",
    5: "a newer process has this worker id",
    6: "a drill was aborted",
    7: "a drill could not be undone",
    130: "ended by Ctrl-C",
}
_COMPLETION = "_PIPELINE_COMPLETE"  # set by the completion scripts of shells


def assemble(typed: str | None = None) -> typer.Typer:
    """Build the command line.

    Args:
        typed: The first argument. If it is the name of a command, only that command is loaded; otherwise all are.
    """
    app = typer.Typer(
        name="pipeline",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=typed not in COMMANDS or _COMPLETION in os.environ,
        callback=_pipeline,
    )
    for name in [typed] if typed is not None and typed in COMMANDS else list(COMMANDS):
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(import_module(f"pipeline.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return adopt(app, _InOrder)


class _InOrder(Commands):
    """Lists the commands by group. Typer would list commands with subcommands last."""

    sections = GROUPS

    def list_commands(self, ctx: Any) -> list[str]:
        known = super().list_commands(ctx)
        return [name for names in GROUPS.values() for name in names if name in known]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click passes it
        """The exit codes of all commands."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code:<3}", meaning) for code, meaning in _EXIT_CODES.items()])


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to load, and only this needs it

        typer.echo(f"pipeline {version('exactly-once-pipeline')}")
        raise typer.Exit


def _pipeline(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exactly-once stream processing in Python on Kafka."""


def main() -> None:
    """Run the typed command, and end the process with its exit code."""
    try:
        run()
    except SystemExit as end:
        end_soon(_code_of(end))
        raise
    except KeyboardInterrupt:
        end_soon(130)
        raise
    except BaseException:
        end_soon(1)
        raise


def _code_of(end: SystemExit) -> int:
    if isinstance(end.code, int):
        return end.code
    return 0 if end.code is None else 1


def _typed() -> str | None:
    """The first argument; during shell completion, the first word after the program."""
    if _COMPLETION in os.environ:
        words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
        return next(iter(words.split()[1:]), None)
    return sys.argv[1] if len(sys.argv) > 1 else None


def run() -> None:
    """Run the typed command, and print its error. Raises SystemExit with the exit code."""
    try:
        code = assemble(_typed())(
            prog_name="pipeline", standalone_mode=False
        )  # raises errors instead of printing them
    except PipelineError as error:
        hint = error.hint
        if isinstance(error, DeniedError):
            from pipeline.cli.acls import grant_hint  # noqa: PLC0415 - the table of permissions is slow to load

            hint = grant_hint(sys.argv[1:])
        _print_error(error.message, hint)
        sys.exit(error.exit_code)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            _print_error(*describe(error))
        sys.exit(2)
    except typer.Abort:
        _print_error("aborted", None)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(message: str, hint: str | None) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    if hint:
        console.print(f"  -> {hint}", markup=False)


LINGER_S = 3.0


def end_soon(code: int) -> None:
    """Let the interpreter end by itself. After LINGER_S, report what still runs and end the process with `code`."""
    if _left_behind():
        threading.Thread(target=_end, args=(code,), daemon=True, name="pipeline-end").start()


def _end(code: int) -> None:
    time.sleep(LINGER_S)
    left = ", ".join(_left_behind()) or "a function registered with atexit"
    reason = f"the command has ended, but these still ran in its process: {left}"
    advice = "stop them in the close() method of a resource of the app, or start them as daemons"
    structlog = sys.modules.get("structlog")  # loaded by every command that logs
    if structlog is not None and structlog.is_configured():
        structlog.get_logger("pipeline").warning(
            "process_exit_forced", reason=reason, exit_code=code, hint=advice
        )
    else:
        sys.stderr.write(f"warning: {reason}\n  -> {advice}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _left_behind() -> list[str]:
    """The threads and processes that the interpreter waits for."""
    main = threading.main_thread()
    threads = [t for t in threading.enumerate() if t is not main and not t.daemon and t.is_alive()]
    found = [f"thread {thread.name}" for thread in threads]
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:  # if it is not loaded, there are no child processes
        found += [f"process {p.pid} ({p.name})" for p in processes.active_children() if not p.daemon]
    return found
