"""`pipeline status`: the problems of an app, its groups and workers, and whether workers can be stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipeline.cli.lookup import AppArgument, app_named
from pipeline.cli.options import (
    CommandWait,
    JsonOption,
    KafkaOption,
    print_json,
    print_message,
    quiet_kafka_settings,
    table_console,
)
from pipeline.cli.status_screen import Space, screen
from pipeline.errors import InputError, UnreachableError
from pipeline.kafka.cluster import KafkaCluster
from pipeline.kafka.journal import KafkaJournalReader
from pipeline.runtime.status import AppStatus, read_status, reasons_to_wait, status_document
from pipeline.runtime.status.problems import LETTERS_PER_MINUTE

__all__ = ["print_safety", "status"]


def status(
    app: AppArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two readings, with --watch.", min=0.2)
    ] = 2.0,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Show all tasks and all problems, without a limit on the lines.")
    ] = False,
    dead_letters_per_minute: Annotated[
        int,
        typer.Option(
            metavar="N", help="A group that writes more dead letters in a minute is a problem.", min=0
        ),
    ] = LETTERS_PER_MINUTE,
    safe_to_stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORKER",
            help="Exit with 0 if the other workers can take all tasks of this one and no task is being restored, "
            "else with 1 and the reason. Repeat it for workers that stop together.",
            show_default=False,
        ),
    ] = None,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Show the problems of an app with the next step for each, its groups, workers and dead letters.

    Reads only Kafka, so it also works while no worker runs. A killed worker that no other worker watches counts as
    live for 10 s. If there is a problem, the exit code is 1.
    """
    if safe_to_stop and watch:
        raise typer.BadParameter("cannot be combined with --watch", param_hint="--safe-to-stop")
    app_named(app)  # an error in the argument is reported before the first request
    settings = quiet_kafka_settings(kafka)
    with (
        closing(KafkaCluster(settings, CommandWait(settings))) as cluster,
        closing(KafkaJournalReader(settings)) as reader,
    ):
        reading = _Reading(app, cluster, reader, dead_letters_per_minute)
        found = reading.read()
        if watch:
            _watch(reading, found, interval, tasks=tasks, json=json)
            return
    if safe_to_stop:
        print_safety(found, safe_to_stop, json=json)
        return
    _print(found, tasks=tasks, json=json)
    if found.problems:
        raise typer.Exit(1)


def print_safety(found: AppStatus, leaving: Sequence[str], *, json: bool) -> None:
    """Print whether these workers can be stopped now. Exits with 1 if not, and with 2 if one is not a live worker."""
    try:
        reasons = reasons_to_wait(found, leaving)
    except InputError as error:
        raise typer.BadParameter(f"{error.message}; {error.hint}", param_hint="--safe-to-stop") from error
    if json:
        print_json({"app": found.app, "workers": leaving, "safe": not reasons, "reasons": reasons})
    elif reasons:
        typer.echo(f"not safe to stop {', '.join(leaving)}:")
        for reason in reasons:
            typer.echo(f"  {reason}")
    else:
        tasks = "all of its tasks" if len(leaving) == 1 else "all of their tasks"
        typer.echo(f"safe to stop {', '.join(leaving)}: the other workers can take {tasks}")
    if reasons:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads the status of an app, as often as needed.

    `app`: as it was given. If it is MODULE:APP, the next steps name it, so that they can be copied.
    """

    app: str
    cluster: KafkaCluster
    reader: KafkaJournalReader
    letters_per_minute: int

    def read(self) -> AppStatus:
        name = app_named(self.app)
        found = read_status(name, self.cluster, self.reader, _now_ms(), self.letters_per_minute)
        return found.named(self.app) if ":" in self.app else found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _print(found: AppStatus, *, tasks: bool, json: bool) -> None:
    if json:
        print_json(status_document(found))
        return
    console = table_console()
    # The shell's prompt needs a line, too.
    space = Space(console.width, console.height - 1) if console.is_terminal else Space()
    # Without the group, rich would wrap the text.
    console.print(Group(screen(found, _now_ms(), space, tasks=tasks)), crop=False)


def _watch(reading: _Reading, found: AppStatus, interval: float, *, tasks: bool, json: bool) -> None:
    """Repeat until Ctrl-C. While Kafka is unreachable, report this and retry."""
    console = Console(highlight=False)
    live = (
        Live(console=console, auto_refresh=False, screen=True) if console.is_terminal and not json else None
    )
    try:
        with live if live is not None else nullcontext():
            while True:
                if live is not None:
                    space = Space(console.width, console.height)
                    live.update(screen(found, _now_ms(), space, tasks=tasks), refresh=True)
                else:
                    _print(found, tasks=tasks, json=json)
                time.sleep(interval)
                found = _read_with_retry(reading, live, interval)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _read_with_retry(reading: _Reading, live: Live | None, interval: float) -> AppStatus:
    """Read the status, and retry until Kafka answers. The previous status is not shown: it may be outdated."""
    since = datetime.now(UTC).strftime("%H:%M:%S")
    while True:
        try:
            return reading.read()
        except UnreachableError as error:
            text = f"{reading.app}: Kafka has been unreachable since {since} UTC\n{error.message}\nretrying"
            if live is not None:
                live.update(Text(text, style="red"), refresh=True)
            else:
                print_message(text)
            time.sleep(interval)
