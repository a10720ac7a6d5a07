"""What the subcommands share: the option that says where Kafka is, and output for people and for programs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from pipeline.config import COMMAND_STARTUP_WAIT_S, KafkaSettings, load_settings
from pipeline.errors import UnreachableError

__all__ = [
    "CommandWait",
    "JsonOption",
    "KafkaOption",
    "confirm",
    "counted",
    "kafka_settings",
    "print_json",
    "say",
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
_PIPED_WIDTH = 240
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def kafka_settings(bootstrap_servers: str | None) -> KafkaSettings:
    """The settings with the flag over everything else. Raises ConfigError.

    The Kafka client's own log is silenced: a command ends with one plain error, not with a dozen retries.
    """
    logging.getLogger("pipeline.kafka").setLevel(logging.CRITICAL)
    return load_settings({"bootstrap_servers": bootstrap_servers}).kafka


class CommandWait:
    """`StartupWait` of a command: it says once, to a person, that it waits."""

    def __init__(self, settings: KafkaSettings) -> None:
        chosen = settings.startup_wait_s
        self.seconds = chosen if chosen is not None else COMMAND_STARTUP_WAIT_S
        self._said = False

    def waiting(self, error: UnreachableError, waited_s: float) -> None:
        if not self._said:
            self._said = True
            say(f"{error.message}: waiting up to {self.seconds - waited_s:.0f} s for it")

    def answered(self, waited_s: float) -> None:
        say(f"Kafka answers after {waited_s:.0f} s")

    def stopped(self) -> bool:
        return False


def print_json(document: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(msgspec.json.encode(document).decode())


def say(text: str) -> None:
    """A line for people, on standard error: standard output holds data only."""
    typer.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless `yes`. Ends the command with 1 for a no, and with 2 where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        say("error: there is no terminal to ask on, and nothing was changed\n  -> add --yes")
        raise typer.Exit(2)
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def table_console() -> Console:
    """A console for tables on standard output: as wide as the terminal, and never cut where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


def terminal_width() -> int:
    """The columns of the terminal on standard output; many where there is none."""
    return table_console().width


def counted(count: int, what: str) -> str:
    """`1 record`, `1,000 records`, `2 tries`."""
    if count == 1:
        return f"1 {what}"
    plural = f"{what[:-1]}ies" if what.endswith("y") and what[-2] not in "aeiou" else f"{what}s"
    return f"{count:,} {plural}"
