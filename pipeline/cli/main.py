"""The `pipeline` command: assembles the subcommands and turns expected errors into text and exit codes."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.cli.ending import end_soon
from pipeline.cli.help import Commands, adopt
from pipeline.errors import PipelineError

__all__ = ["COMMANDS", "assemble", "main"]

# Where each command is. Only the one that was typed is loaded: a worker that starts again has no time for the others.
COMMANDS = {
    "new": "new:new",
    "demo": "demo:demo",
    "worker": "worker:worker",
    "status": "status:status",
    "reset": "reset:reset",
    "migrate": "migrate:migrate_app",
    "table": "table:table_app",
    "journal": "journal:journal_app",
    "checkpoints": "checkpoints:checkpoints_app",
    "broker": "broker:broker_app",
    "topics": "topics:topics_app",
    "produce": "produce:produce",
    "loads": "loads:loads_app",
    "consume": "consume:consume",
    "deadletters": "deadletters:deadletters_app",
    "ring": "ring:ring_app",
    "runbook": "runbook:runbook",
}


_EXIT_CODES = """Exit codes: 0 done; 1 what the command was asked about is wrong; 2 the command line is wrong; 3 Kafka
cannot be reached; 4 `topics plan --check` found changes; 5 another process with the same worker id was started later;
130 Ctrl-C."""


def assemble(typed: str | None = None) -> typer.Typer:
    """The command line; with the name of a command, that one alone. Anything else loads all of them."""
    app = typer.Typer(
        name="pipeline",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        callback=_pipeline,
        epilog=_EXIT_CODES,
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
    """All commands in the order of `COMMANDS`; the library would put those that have subcommands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = super().list_commands(ctx)
        return [name for name in COMMANDS if name in known]


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
    """Run the command that was typed, and end the process with its exit code."""
    try:
        _run()
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


def _run() -> None:
    try:
        assemble(sys.argv[1] if len(sys.argv) > 1 else None)()
    except PipelineError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("error:", style="bold red", end=" ")
        console.print(error.message, markup=False)
        if error.hint:
            console.print(f"  -> {error.hint}", markup=False)
        sys.exit(error.exit_code)
