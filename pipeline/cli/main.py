"""The `pipeline` command: assembles the subcommands and turns expected errors into text and exit codes.

Exit codes: 0 done, 1 the thing asked about is wrong, 2 usage, 3 cannot reach Kafka.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.broker import broker_app
from pipeline.cli.checkpoints import checkpoints_app
from pipeline.cli.consume import consume
from pipeline.cli.journal import journal_app
from pipeline.cli.migrate import migrate_app
from pipeline.cli.produce import produce
from pipeline.cli.reset import reset
from pipeline.cli.ring import ring_app
from pipeline.cli.runbook import runbook
from pipeline.cli.status import status
from pipeline.cli.table import table_app
from pipeline.cli.topics import topics_app
from pipeline.cli.worker import worker
from pipeline.errors import PipelineError

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("worker")(worker)
app.command("status")(status)
app.command("reset")(reset)
app.add_typer(migrate_app, name="migrate")
app.add_typer(table_app, name="table")
app.add_typer(journal_app, name="journal")
app.add_typer(checkpoints_app, name="checkpoints")
app.add_typer(broker_app, name="broker")
app.add_typer(topics_app, name="topics")
app.command("produce")(produce)
app.command("consume")(consume)
app.add_typer(ring_app, name="ring")
app.command("runbook")(runbook)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pipeline {version('exactly-once-pipeline')}")
        raise typer.Exit


@app.callback()
def pipeline(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exactly-once stream processing in Python on Kafka."""


def main() -> None:
    """Run the command that was typed, and end the process with its exit code."""
    try:
        app()
    except PipelineError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("error:", style="bold red", end=" ")
        console.print(error.message, markup=False)
        if error.hint:
            console.print(f"  -> {error.hint}", markup=False)
        sys.exit(error.exit_code)
