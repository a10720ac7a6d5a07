"""`pipeline new NAME`: a project that runs as it is, and the commands that run it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import print_message
from pipeline.ops.new_project import create_project

__all__ = ["new"]

# What a reader types next. Each line runs as printed, in this order; the last one in a second terminal.
_NEXT = """
Test it in memory (pip install pytest, if it is missing):

  cd {name}
  python -m pytest

Run it on a local Kafka. Ctrl-C stops the worker:

  pipeline broker start
  pipeline topics apply
  pipeline produce {name}-orders orders.csv --key customer
  pipeline worker app:app

Read the results in a second terminal, in the same directory:

  pipeline consume {name}-totals --follow --max 5
  pipeline table show by-customer --app app:app"""


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the app and of its directory, as in my-app.")
    ],
) -> None:
    """Create a project in the directory NAME: an app, topics, a test, sample data and pipeline.toml.

    The project runs as it is. The command prints the next commands. It never changes an existing file: the directory
    must be new or empty.
    """
    files = create_project(name, Path())
    typer.echo(f"created {name}/: {', '.join(files)}")
    servers = os.environ.get("PIPELINE_KAFKA")
    if servers:
        print_message(
            f"PIPELINE_KAFKA is set: commands use the Kafka at {servers}, and not the one in {name}/pipeline.toml\n"
            "  -> to use the one in the file: unset PIPELINE_KAFKA"
        )
    typer.echo(_NEXT.format(name=name))
