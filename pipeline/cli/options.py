"""Shared options, output helpers and confirmation."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from pipeline.api.shown import represented
from pipeline.config import COMMAND_STARTUP_WAIT_S, KafkaSettings, load_settings
from pipeline.errors import UnreachableError

__all__ = [
    "CommandWait",
    "JsonOption",
    "KafkaOption",
    "StoreOption",
    "confirm",
    "print_json",
    "print_message",
    "quiet_kafka_settings",
    "table_console",
    "terminal_width",
]

KafkaOption = Annotated[
    str | None,
    typer.Option(
        "--kafka",
        metavar="HOST:PORT",
        help="Kafka's bootstrap servers. Default: $PIPELINE_KAFKA, pipeline.toml, 127.0.0.1:9092.",
        show_default=False,
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="The checkpoint store. Default: worker.checkpoint_store.",
        show_default=False,
    ),
]
_PIPED_WIDTH = 240
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def quiet_kafka_settings(bootstrap_servers: str | None) -> KafkaSettings:
    """Return the Kafka settings, and silence the log of the Kafka client.

    The argument overrides all other sources. A command reports an error once, without the client's retries.

    Raises:
        ConfigError: A setting is wrong.
    """
    logging.getLogger("pipeline.kafka").setLevel(logging.CRITICAL + 1)
    return load_settings({"bootstrap_servers": bootstrap_servers}).kafka


class CommandWait:
    """The `StartupWait` of a command. It reports once that Kafka is unreachable."""

    def __init__(self, settings: KafkaSettings) -> None:
        chosen = settings.startup_wait_s
        self.seconds = chosen if chosen is not None else COMMAND_STARTUP_WAIT_S
        self._said = False

    def on_unreachable(self, error: UnreachableError, waited_s: float) -> None:
        if not self._said:
            self._said = True
            print_message(f"{error.message}: retrying for up to {self.seconds - waited_s:.0f} s")

    def on_reachable(self, waited_s: float) -> None:
        print_message(f"Kafka is reachable after {waited_s:.0f} s")

    def should_stop(self) -> bool:
        return False


def print_json(document: Any) -> None:
    """Print one line of JSON on standard output."""
    typer.echo(msgspec.json.encode(document, enc_hook=represented).decode())


def print_message(text: str) -> None:
    """Print a message on standard error. Standard output contains only data."""
    typer.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation on a terminal, unless `yes`. The exit code is 1 after a no, and 2 without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        print_message(
            "error: this command needs a confirmation, and there is no terminal. Nothing was changed\n  -> add --yes"
        )
        raise typer.Exit(2)
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def table_console() -> Console:
    """A console for tables on standard output. Without a terminal it is wide enough for every table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


def terminal_width() -> int:
    """The width of the terminal on standard output; 240 without a terminal."""
    return table_console().width
